use std::{collections::BTreeMap, time::Duration};

use super::*;

const ABOUT: About = About { name: "product", about: "Example", version: Some("1.2.3") };

/// Its flags.
#[derive(Debug, Args)]
struct Flags {
    /// How many
    #[arg(long)]
    stock: Option<u32>,
}

fn read_with<F: Args>(args: &[&str], variables: &[(&str, &str)]) -> Result<Line<F>, Unread> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let settings = Settings::new("127.0.0.1:7070".parse().unwrap());
    let variable = |name: &str| variables.get(name).map(OsString::from);
    read(&ABOUT, &settings, [&["product"], args].concat(), variable)
}

fn said<F: Args>(args: &[&str], variables: &[(&str, &str)]) -> String {
    match read_with::<F>(args, variables) {
        Err(Unread::Mistake(mistake)) => {
            assert_eq!(mistake.lines().count(), 1, "{mistake}");
            mistake
        }
        Err(Unread::Page(page)) => page.to_string(),
        Ok(_) => panic!("{args:?} {variables:?} is right"),
    }
}

#[test]
fn the_default_port_is_the_services_own() {
    let Line { settings, probe, own: () } = read_with(&[], &[]).unwrap();
    assert_eq!((settings.listen.to_string().as_str(), probe), ("127.0.0.1:7070", false));
    let help = said::<Flags>(&["--help"], &[]);
    for part in ["Example", "[default: 127.0.0.1:7070]", "[env: ROUNDSMAN_ZONE]", "--stock <STOCK>", "How many"] {
        assert!(help.contains(part), "{part} is missing in {help}");
    }
    assert!(help.starts_with("Example\n"), "its title is what the flags are described with: {help}");
    assert_eq!(said::<()>(&["--version"], &[]), "product 1.2.3\n");
    command::<Flags>(&ABOUT, &settings).debug_assert();
}

#[test]
fn a_flag_counts_before_a_variable_and_that_before_the_code() {
    let listen =
        |args: &[&str], variables: &[(&str, &str)]| read_with::<()>(args, variables).unwrap().settings.listen.port();
    let variable = ("ROUNDSMAN_LISTEN", "127.0.0.1:2");
    assert_eq!(listen(&["--listen", "127.0.0.1:1"], &[variable]), 1);
    assert_eq!(listen(&[], &[variable]), 2);
    assert_eq!(listen(&[], &[("ROUNDSMAN_LISTEN", "")]), 7070, "empty is as good as none");
}

#[test]
fn everything_that_can_be_said_arrives() {
    let flags = "--zone a --weight 3 --tag x --tag y,z --meta k=1,2 --meta l= --id p-1 --service-version 9 \
        --snapshot-file f --notice 1s --grace 2s --empty-grace 0s --discovery-timeout 3s --breaker off --namespace shop \
        --discovery a:1,b:2 --health-listen 127.0.0.1:9 --advertise product:7070 --log-format json";
    let args: Vec<_> = flags.split_whitespace().collect();
    let settings = read_with::<()>(&args, &[]).unwrap().settings;
    let instance = crate::NewInstance::new("product", "a:1").unwrap().tag("code").meta("k", "0");
    let registration = settings.instance(instance).unwrap().into_registration().unwrap();
    assert_eq!(registration.tags, ["code".into(), "x".into(), "y,z".into()]);
    assert_eq!(registration.meta.iter().collect::<Vec<_>>(), [("k", "1,2"), ("l", "")]);
    assert_eq!((registration.weight, registration.zone.as_deref()), (3, Some("a")));
    assert_eq!((registration.id.unwrap().as_str(), registration.version.as_deref()), ("p-1", Some("9")));
    assert_eq!((settings.grace, settings.probed().port()), (Duration::from_secs(2), 9));
    let client = format!("{:?}", settings.client(crate::Builder::default()));
    for part in ["a:1,b:2", "\"shop\"", "timeout: 3s", "Some(\"f\")", "notice: 1s", "empty_grace: 0ns", "4294967295"] {
        assert!(client.contains(part), "{part} is missing in {client}");
    }
    // The same by the environment.
    let variables: Vec<_> = [("TAGS", "x, y"), ("META", "k=1,l=2"), ("WEIGHT", "3")].to_vec();
    let names: Vec<_> = variables.iter().map(|(name, value)| (format!("ROUNDSMAN_{name}"), *value)).collect();
    let variables: Vec<_> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let settings = read_with::<()>(&[], &variables).unwrap().settings;
    let instance = crate::NewInstance::new("product", "a:1").unwrap();
    let registration = settings.instance(instance).unwrap().into_registration().unwrap();
    assert_eq!((registration.tags.len(), registration.meta.len(), registration.weight), (2, 2, 3));
}

#[test]
fn a_bad_value_is_one_line_that_names_who_gave_it() {
    for (args, says) in [
        (&["--listen", "here"][..], "--listen here: must be IP:PORT"),
        (&["--advertise", "nowhere"], "--advertise nowhere: must be HOST:PORT"),
        (&["--discovery", "a:0"], "--discovery a:0: must be HOST:PORT"),
        (&["--namespace", "a b"], "--namespace a b: must be"),
        (&["--weight", "0"], "--weight 0: must be between"),
        (&["--weight", "heavy"], "--weight heavy: must be a number"),
        (&["--meta", "k"], "--meta k: must be KEY=VALUE"),
        (&["--zone", ""], "--zone : must be 1 to"),
        (&["--id", "a b"], "--id a b: must be"),
        (&["--discovery-timeout", "0s"], "--discovery-timeout 0s: must be more than 0"),
        (&["--grace", "2h"], "--grace 2h: must be at most 1h"),
        (&["--breaker", "on"], "--breaker on: must be off, or rules"),
        (&["--log-format", "xml"], "--log-format xml: must be human or json"),
        (&["--listen", "0.0.0.0:7070"], "--advertise: is needed when it listens on 0.0.0.0:7070"),
        (&["--health-listen", "127.0.0.1:7070"], "--health-listen: must be another address than --listen"),
        (&["--stock", "3"], "unexpected argument '--stock'"),
        (&["--zone", "a", "--zone", "b"], "cannot be used multiple times"),
    ] {
        let said = said::<()>(args, &[]);
        assert!(said.starts_with(says) || said.contains(says), "{args:?}: {said}");
    }
    let mistake = said::<()>(&[], &[("ROUNDSMAN_WEIGHT", "0"), ("ROUNDSMAN_TAGS", "a,b\u{7}")]);
    assert!(mistake.starts_with("ROUNDSMAN_WEIGHT=0: must be between"), "{mistake}");
    assert!(mistake.contains("; ROUNDSMAN_TAGS="), "all mistakes at once: {mistake}");
    assert!(said::<Flags>(&["--stock", "many"], &[]).contains("'--stock <STOCK>'"));
    let many: Vec<_> = (0..100).flat_map(|n| ["--tag".to_owned(), n.to_string()]).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(said::<()>(&many, &[]).starts_with("--tag and --meta: at most"));
}

#[test]
fn a_probe_advertises_nothing() {
    assert!(read_with::<()>(&["--listen", "0.0.0.0:7070", "--probe"], &[]).unwrap().probe);
    let told = read_with::<()>(&["--listen", "0.0.0.0:7070", "--advertise", "product:7070"], &[]).unwrap();
    assert_eq!(told.settings.advertised(told.settings.listen).unwrap().to_string(), "product:7070");
}

#[test]
fn a_flag_of_its_own_takes_the_place_of_one_of_these() {
    #[derive(Debug, Args)]
    struct Own {
        /// Which zone to sell in
        #[arg(long)]
        zone: Option<String>,
        #[arg(long)]
        probe: Option<String>,
    }
    let args = ["--zone", "x", "--probe", "y"];
    let Line { settings, probe, own } = read_with::<Own>(&args, &[("ROUNDSMAN_ZONE", "a")]).unwrap();
    assert_eq!((own.zone.as_deref(), own.probe.as_deref(), probe), (Some("x"), Some("y"), false));
    let instance = settings.instance(crate::NewInstance::new("product", "a:1").unwrap()).unwrap();
    assert_eq!(instance.into_registration().unwrap().zone.as_deref(), Some("a"), "the variable remains");
}

#[test]
fn the_documentation_lists_every_setting() {
    let rows = SETTINGS.iter().map(|setting| {
        let Setting { flag, value, variable, default, help, .. } = setting;
        format!("//! | `--{flag} {value}` | `{variable}` | {default} | {help} |\n")
    });
    let rows: String = rows.collect();
    assert!(include_str!("../../service.rs").contains(&rows), "the table should have these rows:\n{rows}");
}
