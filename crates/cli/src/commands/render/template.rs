//! The template, and what it can ask.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use roundsman::{Instance, Namespace, ServiceName, protocol::limits};
use tokio::sync::oneshot;

use super::{
    bounds::{self, Bounded, LONGEST, STEPS},
    lists::{Asked, Known},
    source,
};
use crate::exit::Failure;

/// As much as the main thread has: macros may call themselves.
const STACK: usize = 8 * 1_024 * 1_024;

/// So much of a line is shown in an error.
const SHOWN: usize = 80;

/// Where the template is, and its variables.
#[derive(Debug)]
pub(super) struct Template {
    path: PathBuf,
    namespace: Namespace,
    variables: Vec<(String, String)>,
}

/// What became of it, from what was known.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// What it asked for, known or not.
    pub(super) asked: BTreeSet<Asked>,
}

// === impl Template ===

impl Template {
    pub(super) fn new(path: PathBuf, namespace: Namespace, variables: Vec<(String, String)>) -> Self {
        Self { path, namespace, variables }
    }

    /// What it says at this moment: it may be edited at any time.
    pub(super) async fn read(self: &Arc<Self>) -> Result<Arc<str>, Failure> {
        let template = Arc::clone(self);
        apart(move || source::read(&template.path).map(Arc::from)).await
    }

    /// Makes the file of what it says, which may take a while.
    pub(super) async fn render(self: &Arc<Self>, source: &Arc<str>, known: Known) -> Result<Rendered, Failure> {
        let (template, source) = (Arc::clone(self), Arc::clone(source));
        apart(move || {
            let path = template.path.display();
            template.render_source(&source, known).map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => Failure::Failed(format!(
                    "the template {path} takes more than {STEPS} steps; do its loops have an end?"
                )),
                _ => Failure::Failed(format!("the template {path} cannot be rendered: {}", said(&error, &source))),
            })
        })
        .await
    }

    fn render_source(&self, source: &str, known: Known) -> Result<Rendered, Error> {
        let (known, asked) = (Arc::new(known), Arc::new(Mutex::new(BTreeSet::new())));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_syntax(syntax()?);
        bounds::put_on(&mut environment);
        let (lists, asking) = (Arc::clone(&known), Arc::clone(&asked));
        environment.add_function("service", move |name: Value, which: Kwargs| service(&lists, &asking, &name, &which));
        let asking = Arc::clone(&asked);
        environment.add_function("services", move || {
            note(&asking, Asked::Everything);
            let all = known.get(&Asked::Everything).into_iter().flatten();
            let names: BTreeSet<&str> = all.map(|instance| instance.name.as_str()).collect();
            names.into_iter().map(str::to_owned).collect::<Vec<String>>()
        });
        environment.add_global("namespace", self.namespace.as_str());
        for (key, value) in &self.variables {
            environment.add_global(key.clone(), value.clone());
        }
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut written = Bounded::new(LONGEST);
        environment.template_from_named_str(&name, source)?.render_captured_to((), &mut written)?;
        let text = written.into_text()?;
        let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
        if asked.len() > limits::MAX_QUERY_SERVICES {
            let most = limits::MAX_QUERY_SERVICES;
            return Err(wrong(format!("it asks for more than {most} services; services() asks for all at once")));
        }
        Ok(Rendered { text, asked })
    }
}

/// Lines with nothing but a statement leave nothing behind, as people expect of configuration files.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()
}

/// Does it on a thread of its own, on which nobody waits when the process is told to stop meanwhile: a runtime waits for its
/// own at its end, and a template may take long.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let (told, done) = oneshot::channel();
    let thread = thread::Builder::new().name("render".to_owned()).stack_size(STACK);
    thread.spawn(move || drop(told.send(work()))).map_err(Failure::Runtime)?;
    done.await.unwrap_or_else(|_| Err(Failure::Failed("the template cannot be rendered: it is too much".to_owned())))
}

/// With the line that it is about, and with what is behind it, where that says more.
fn said(error: &Error, source: &str) -> String {
    let mut said = error.to_string();
    let line = error.line().and_then(|line| source.lines().nth(line.checked_sub(1)?));
    if let Some(line) = line.map(str::trim).filter(|line| !line.is_empty()) {
        let more = if line.chars().nth(SHOWN).is_some() { "…" } else { "" };
        said.push_str(&format!(": `{}{more}`", line.chars().take(SHOWN).collect::<String>()));
    }
    if let Some(source) = std::error::Error::source(error) {
        said.push_str(&format!(": {source}"));
    }
    said
}

fn note(asked: &Mutex<BTreeSet<Asked>>, what: Asked) {
    asked.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
}

fn wrong(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// `service("product", zone="a")`: the instances that are handed out, in the order of their ids.
fn service(known: &Known, asked: &Mutex<BTreeSet<Asked>>, name: &Value, which: &Kwargs) -> Result<Vec<Value>, Error> {
    let Some(name) = name.as_str() else {
        return Err(wrong(format!("service() takes a name in quotes, such as service(\"product\"), not {name}")));
    };
    let name = ServiceName::try_new(name).map_err(|invalid| wrong(invalid.to_string()))?;
    let (tag, zone, version) = (text(which, "tag")?, text(which, "zone")?, text(which, "version")?);
    if let Some(other) = which.args().find(|key| !["tag", "zone", "version"].contains(key)) {
        return Err(wrong(format!("service() takes tag, zone and version besides the name, not {other}")));
    }
    let asked_for = Asked::Service(name);
    let instances = known.get(&asked_for).into_iter().flatten();
    let matching = instances.filter(|instance| {
        tag.as_ref().is_none_or(|tag| instance.tags.iter().any(|of| **of == **tag))
            && zone.as_ref().is_none_or(|zone| instance.zone.as_deref() == Some(zone))
            && version.as_ref().is_none_or(|version| instance.version.as_deref() == Some(version))
    });
    let values = matching.map(|instance| value(instance)).collect();
    note(asked, asked_for);
    values
}

/// A text in quotes: a version that is written as the number 1.10 would be 1.1.
fn text(which: &Kwargs, key: &str) -> Result<Option<String>, Error> {
    let Some(value) = which.get::<Option<Value>>(key)? else { return Ok(None) };
    match value.as_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(wrong(format!("service() takes a {key} in quotes, such as {key}=\"{value}\""))),
    }
}

/// An instance as JSON has it, with the two parts of its address.
fn value(instance: &Instance) -> Result<Value, Error> {
    let failed = |error: serde_json::Error| wrong(error.to_string());
    let mut fields = serde_json::to_value(instance).map_err(failed)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("host".to_owned(), instance.address.host().to_string().into());
        fields.insert("port".to_owned(), instance.address.port().into());
    }
    Ok(Value::from(Serde(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let instance = |id: &str, zone: &str| {
            let json = serde_json::json!({
                "id": id, "name": "product", "namespace": "default", "address": "[::1]:7070", "status": "passing",
                "reason": "", "since": "2026-11-21T19:00:00Z", "registered_at": "2026-11-21T19:00:00Z",
                "check": {}, "tags": ["a&b"], "meta": {"team": "fruit"}, "zone": zone, "version": null, "weight": 3,
            });
            Arc::new(serde_json::from_value::<Instance>(json).unwrap())
        };
        let list = vec![instance("product-1", "a"), instance("product-2", "b")];
        Known::from([(Asked::Service("product".parse().unwrap()), list.clone()), (Asked::Everything, list)])
    }

    fn rendered(source: &str, known: Known) -> Result<Rendered, String> {
        let template = Template::new("t.j2".into(), Namespace::default(), vec![("port".to_owned(), "80".to_owned())]);
        template.render_source(source, known).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_sees_what_is_handed_out_and_what_it_asks_is_known() {
        let source = "{% for i in service('product', zone='b') %}\n  server {{ i.id }} {{ i.address }} {{ i.host }} \
                      {{ i.port }} {{ i.weight }} {{ i.meta.team }} {{ i.tags[0] }}\n{% endfor %}\n{{ services() | join(',') }} {{ port }}\n";
        let Rendered { text, asked } = rendered(source, known()).unwrap();
        assert_eq!(text, "  server product-2 [::1]:7070 ::1 7070 3 fruit a&b\nproduct 80\n");
        assert_eq!(asked.len(), 2);
        let nobody = rendered("{% for i in service('x') %}{{ i }}{% else %}nobody{% endfor %}", Known::new()).unwrap();
        assert_eq!((nobody.text.as_str(), nobody.asked.len()), ("nobody", 1));
        assert_eq!(rendered("{{ missing | default('d') }} {{ namespace }}", known()).unwrap().text, "d default");
    }

    #[test]
    fn mistakes_name_their_line() {
        let says = |source: &str| rendered(source, known()).unwrap_err();
        assert!(says("a\n{{ missing }}").contains("undefined") && says("a\n{{ missing }}").contains("t.j2:2"));
        assert!(says("{% for i in service('product') %}{{ i.adress }}{% endfor %}").contains("undefined"));
        assert!(says("{{ service('a b') }}").contains("must be 1 to 63"));
        assert!(
            says("{{ service('product', zonne='a') }}")
                .contains("takes tag, zone and version besides the name, not zonne")
        );
        assert!(says("{% for %}").contains("t.j2:1"));
        assert!(says("{{ service(1) }}").contains("service() takes a name in quotes"));
        assert!(says("{{ service(none) }}").contains("in quotes"));
        assert!(says("{{ service('product', version=1.10) }}").contains("version=\"1.1\""));
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let says = |source: &str| rendered(source, known()).unwrap_err();
        assert!(says("{{ '%10000000000d' | format(3) }}").contains("nothing wider than 1024"));
        assert!(says("{{ '%.99999999999999999999f' | format(3) }}").contains("nothing wider than 1024"));
        assert!(says("{{ 'a\nb' | indent(10000000000) }}").contains("nothing wider than 1024"));
        assert!(says("{{ 'a\nb' | indent(width=10000000000) }}").contains("nothing wider than 1024"));
        let usual = rendered("{{ '%05.1f|%-4s|' | format(3, 'x') }} {{ 'a\nb' | indent(2) }}", known()).unwrap();
        assert_eq!(usual.text, "003.0|x   | a\n  b");
        let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        assert!(says(loops).contains("out of fuel"));
        let long = "{% set a = 'x' * 10000 %}{% for b in range(30000) %}{{ a }}{% endfor %}";
        assert!(says(long).contains("failed to write output"), "{}", says(long));
    }
}
