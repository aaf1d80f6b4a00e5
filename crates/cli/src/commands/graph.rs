//! `roundsman graph`: which service calls which.

use clap::{Args, ValueEnum};
use roundsman::{Callee, Edge, Graph};

use crate::{
    args::{ClientArgs, Data, Shape},
    commands::{connect, note},
    exit::Failure,
    output::{Screen, Style, ago},
};

#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs<GraphOutput>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphOutput {
    /// For people
    #[default]
    #[value(alias = "table")]
    Tree,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
    /// For programs, and people
    Yaml,
}

/// What makes edges appear, for those who see none.
const NOTHING: &str = "nobody has asked for a service yet, or nobody said who they are: callers appear here once they give \
                       their name, in Rust with Discovery::builder().service(\"order\")";

pub(crate) async fn run(args: GraphArgs) -> Result<(), Failure> {
    let graph = connect(&args.client).await?.graph().await?;
    let mut screen = Screen::stdout();
    match args.client.output() {
        GraphOutput::Json => screen.data(Data::Json, &graph),
        GraphOutput::Yaml => screen.data(Data::Yaml, &graph),
        GraphOutput::Dot => screen.raw(dot(&graph).as_bytes()),
        GraphOutput::Tree if graph.edges.is_empty() => {
            note(NOTHING);
            Ok(())
        }
        GraphOutput::Tree => {
            let tree = tree(&graph, |style, text| screen.paint(style, text));
            screen.raw(tree.as_bytes())
        }
    }
}

impl Shape for GraphOutput {
    fn data(self) -> Option<Data> {
        match self {
            Self::Json => Some(Data::Json),
            Self::Yaml => Some(Data::Yaml),
            Self::Tree | Self::Dot => None,
        }
    }
}

/// Each caller, and below it whom it calls. One level: services that call each other would have no end.
fn tree(graph: &Graph, paint: impl Fn(Style, &str) -> String) -> String {
    let width = graph.edges.iter().map(|edge| name(&edge.callee).len()).max().unwrap_or_default();
    let mut out = String::new();
    for of_caller in graph.edges.chunk_by(|a, b| a.caller == b.caller) {
        let Some((last, others)) = of_caller.split_last() else { continue };
        out.push_str(&paint(Style::Bold, last.caller.as_str()));
        out.push('\n');
        for (branch, edge) in others.iter().map(|edge| ("├──", edge)).chain([("└──", last)]) {
            let callee = format!("{:width$}", name(&edge.callee));
            let (style, mark) =
                if graph.knows(&edge.callee) { (Style::Plain, "") } else { (Style::Red, ", nobody has this name") };
            let counts = format!("{}, last {}", counts(edge).join(", "), ago(edge.last, graph.now));
            out.push_str(&format!("{branch} {}    {counts}{}\n", paint(style, &callee), paint(style, mark)));
        }
    }
    if graph.unrecorded > 0 {
        let missing = plural(graph.unrecorded, "lookup or watch", "lookups and watches");
        out.push_str(&format!("{missing} of new edges not counted: the server's limit --max-edges is reached\n"));
    }
    out
}

/// For Graphviz: `roundsman graph -o dot | dot -Tsvg`. Names that nobody has are dashed.
fn dot(graph: &Graph) -> String {
    // Names are made of letters, digits and hyphens: in quotes they need no escapes.
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", graph.namespace);
    for service in &graph.services {
        out.push_str(&format!("  \"{service}\";\n"));
    }
    let mut unknown: Vec<&Callee> = graph.edges.iter().map(|edge| &edge.callee).collect();
    unknown.retain(|callee| !graph.knows(callee));
    unknown.sort();
    unknown.dedup();
    for callee in unknown {
        out.push_str(&format!("  \"{callee}\" [style=dashed];\n"));
    }
    if graph.edges.iter().any(|edge| edge.callee == Callee::Everything) {
        out.push_str("  \"*\" [label=\"everything\"];\n");
    }
    for edge in &graph.edges {
        let label = counts(edge).join("\\n");
        out.push_str(&format!("  \"{}\" -> \"{}\" [label=\"{label}\"];\n", edge.caller, edge.callee));
    }
    out.push_str("}\n");
    out
}

fn name(callee: &Callee) -> &str {
    match callee {
        Callee::Everything => "everything",
        Callee::Service(name) => name.as_str(),
    }
}

/// What there is to count: at least one part.
fn counts(edge: &Edge) -> Vec<String> {
    let lookups = (edge.lookups > 0 || edge.watching == 0).then(|| plural(edge.lookups, "lookup", "lookups"));
    let watching = (edge.watching > 0).then(|| format!("{} watching", grouped(edge.watching)));
    lookups.into_iter().chain(watching).collect()
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// With a comma after each third digit, counted from the right.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use roundsman::{Namespace, Timestamp};

    use super::*;

    fn graph() -> Graph {
        let edge = |caller: &str, callee: &str, lookups, watching, ago: u64| Edge {
            caller: caller.parse().unwrap(),
            callee: callee.parse().unwrap(),
            lookups,
            watching,
            last: Timestamp::from_millis(1_000_000 - ago * 1_000),
        };
        Graph {
            namespace: Namespace::default(),
            since: Timestamp::from_millis(1_000),
            now: Timestamp::from_millis(1_000_000),
            services: vec!["order".parse().unwrap(), "product".parse().unwrap()],
            edges: vec![
                edge("order", "*", 0, 2, 0),
                edge("order", "prodcut", 1, 0, 240),
                edge("order", "product", 1_234_567, 1, 2),
                edge("product", "order", 0, 0, 3),
            ],
            unrecorded: 0,
        }
    }

    #[test]
    fn callers_that_call_each_other_make_a_tree_with_an_end() {
        let mut graph = graph();
        let plain = |_: Style, text: &str| text.to_owned();
        let expected = "\
order
├── everything    2 watching, last 0s ago
├── prodcut       1 lookup, last 4m ago, nobody has this name
└── product       1,234,567 lookups, 1 watching, last 2s ago
product
└── order         0 lookups, last 3s ago
";
        assert_eq!(tree(&graph, plain), expected);
        graph.unrecorded = 1_000;
        assert!(tree(&graph, plain).ends_with(
            "\n1,000 lookups and watches of new edges not counted: the server's limit --max-edges is reached\n"
        ));
        assert!(tree(&graph, |style, text| style.paint(text)).contains("\u{1b}[31mprodcut   \u{1b}[0m"));
    }

    #[test]
    fn dot_names_every_node_and_edge() {
        let expected = r#"digraph "default" {
  rankdir=LR;
  node [shape=box];
  "order";
  "product";
  "prodcut" [style=dashed];
  "*" [label="everything"];
  "order" -> "*" [label="2 watching"];
  "order" -> "prodcut" [label="1 lookup"];
  "order" -> "product" [label="1,234,567 lookups\n1 watching"];
  "product" -> "order" [label="0 lookups"];
}
"#;
        assert_eq!(dot(&graph()), expected);
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
