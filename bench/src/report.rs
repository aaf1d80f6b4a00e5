//! The table: on the terminal and as Markdown. The only place that prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]

use std::fmt::Write as _;

use roundsman_protocol::Clock;

use crate::{
    error::Failure,
    machine::Machine,
    peers,
    plan::Plan,
    plot::{self, Cost, Curve, Point, Whose},
};

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    measured: String,
    /// What an older release came to; such rows have a table of their own.
    before: Option<String>,
    goal: String,
    verdict: Verdict,
    /// For the plot.
    curves: Vec<Curve>,
}

/// Whether a goal was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Missed,
    /// There is no goal: a peer, or a figure that explains another.
    None,
    /// There is one, but what it is compared with is missing.
    Unknown,
}

/// Everything that was measured, and where.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    versions: Vec<String>,
    plan: Plan,
    rows: Vec<Row>,
}

// === impl Row ===

impl Row {
    /// A figure without a goal of its own.
    pub(crate) fn figure(what: impl Into<String>, measured: impl Into<String>) -> Self {
        let (what, measured, goal) = (what.into(), measured.into(), String::new());
        Self { what, measured, before: None, goal, verdict: Verdict::None, curves: Vec::new() }
    }

    /// What its goal is, and whether it was reached; `None` when what it is compared with is missing.
    pub(crate) fn goal(self, goal: impl Into<String>, reached: Option<bool>) -> Self {
        let verdict = match reached {
            Some(true) => Verdict::Reached,
            Some(false) => Verdict::Missed,
            None => Verdict::Unknown,
        };
        Self { goal: goal.into(), verdict, ..self }
    }

    /// With what the figure comes to at each size.
    pub(crate) fn curve(mut self, cost: Cost, whose: Whose, points: Vec<Point>) -> Self {
        self.curves.push(Curve { cost, whose, points });
        self
    }

    /// Beside what an older release came to: the row of the same name, or why there is none.
    pub(crate) fn compare(mut self, before: &Result<Vec<Self>, String>) -> Self {
        let before = match before {
            Ok(rows) => {
                let row = rows.iter().find(|row| row.what == self.what);
                let curves = row.into_iter().flat_map(|row| &row.curves).cloned();
                self.curves.extend(curves.map(|curve| Curve { whose: Whose::Before, ..curve }));
                row.map(|row| row.measured.clone()).unwrap_or_default()
            }
            Err(error) => format!("could not be measured: {error}"),
        };
        Self { before: Some(before), ..self }
    }

    fn verdict(&self) -> &'static str {
        match self.verdict {
            Verdict::Reached => "yes",
            Verdict::Missed => "NO",
            Verdict::None => "",
            Verdict::Unknown => "not compared",
        }
    }

    fn cells(&self) -> Vec<&str> {
        let before = self.before.as_deref();
        [Some(self.what.as_str()), before, Some(&self.measured), Some(&self.goal), Some(self.verdict())]
            .into_iter()
            .flatten()
            .collect()
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(plan: &Plan, machine: Machine) -> Self {
        let version = |program| peers::version(program).unwrap_or_else(|error| error.to_string());
        let versions = ["etcd", "redis-server", "nats-server"].map(version).to_vec();
        Self { machine, versions, plan: *plan, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            say(&format!("  {}: {}", row.what, row.measured));
            self.rows.push(row);
        }
    }

    /// The rows of this release alone, and those beside an older one, each with its head.
    fn tables(&self) -> Vec<Vec<Vec<&str>>> {
        let heads = [vec!["what", "measured", "goal", "reached"], vec!["what", "before", "now", "goal", "reached"]];
        let tables = heads.into_iter().map(|head| {
            let rows = self.rows.iter().map(Row::cells).filter(|cells| cells.len() == head.len()).collect::<Vec<_>>();
            if rows.is_empty() { rows } else { std::iter::once(head).chain(rows).collect() }
        });
        tables.filter(|table| !table.is_empty()).collect()
    }

    /// Costs against sizes, when they were measured.
    pub(crate) fn plot(&self) -> Option<String> {
        let curves: Vec<Curve> = self.rows.iter().flat_map(|row| row.curves.iter().cloned()).collect();
        let source = format!("bench/results.md of {}; {}", Clock::system().now(), self.machine);
        plot::page(&curves, &source)
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        println!("\n{}; {}\n", self.machine, self.versions.join(", "));
        for table in self.tables() {
            let columns = table.iter().map(Vec::len).max().unwrap_or_default();
            let width = |column: usize| {
                let cells = table.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
            };
            let widths: Vec<usize> = (0..columns).map(width).collect();
            for line in &table {
                let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
                println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
            }
            println!();
        }
    }

    /// The table, and how it came about, as a page.
    pub(crate) fn markdown(&self) -> String {
        let mut page = String::from(
            "# Benchmark results\n\nWritten by `./scripts/bench.sh`; run it to replace them with your machine's.\n\n",
        );
        // Writing into a string cannot fail.
        let _ = writeln!(page, "- when: {}", Clock::system().now());
        let _ = writeln!(page, "- where: {}", self.machine);
        let _ = writeln!(page, "- peers: {}", self.versions.join(", "));
        let _ = writeln!(page, "- Roundsman {}, release build", env!("CARGO_PKG_VERSION"));
        if self.plan.quick {
            page.push_str("- a `--quick` run: it shows that the benchmarks work, its figures mean little\n");
        }
        page.push('\n');
        for table in self.tables() {
            for (number, row) in table.iter().enumerate() {
                let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
                let _ = writeln!(page, "| {} |", cells.join(" | "));
                if number == 0 {
                    let _ = writeln!(page, "|{}", "---|".repeat(row.len()));
                }
            }
            page.push('\n');
        }
        page.push_str(&self.conditions());
        page
    }

    fn conditions(&self) -> String {
        let Plan { rounds, services, .. } = self.plan;
        format!(
            "## How it was measured\n\n\
            - Everything runs on this one machine over loopback: servers, peers and load share its cores. Ratios within a run carry over to\n  \
              other machines, absolute figures do not.\n\
            - Medians of {rounds} rounds; in each round everything that is compared has its turn, seconds apart.\n\
            - Roundsman is the release binary with its default settings but for the limits that a row needs. CPU time is user and system time of the\n  \
              server's process. `k/s` are thousands of answered calls per second.\n\
            - Lookups walk {services} services of three instances. Roundsman's answers are decoded to instances; those of etcd (one key), redis\n  \
              (a hash of three fields) and NATS (a fixed reply from this same process) are received and not decoded any further.\n\
            - The floor is a single-threaded server that cuts the same frames by hand, looks the service up in a hash map and answers with as many bytes.\n  \
              Rows with the floor tie servers to the first core and the load to the second, and use requests written beforehand.\n\
            - Killed instances are processes that answer `GET /health`; the clock runs from just before `kill -9` to the moment when the last\n  \
              watcher has removed the instance from its map.\n\
            - Calls by name come at their rate whether or not earlier ones were answered, from one process; instances that are killed are replaced before.\n\
            - An instance that hung is asked afterwards for the last call that had reached its sockets. Its server visits nobody by turns meanwhile:\n  \
              what counts is the caller's report.\n\
            - The memory of a resolver is that of a process with ten of them, less that of one with none, divided by ten.\n\
            - Visited instances are real listeners with addresses of their own in other processes.\n\
            - The second table is about load, attacks and growth. Its rows were measured in this run on this release and, where `--against`\n  \
              named one, on an older one: in JSON behind a handshake of version 1, which both understand, but for snapshots and digests.\n\
            - Those who hang accept connections and never answer, each at an address of its own. Deaths and births beside them come 150 ms apart,\n  \
              whether or not the one before was noticed; what is not noticed within 20 s counts as that.\n\
            - Memory under attack is the most that the server had resident more than before, looked at every 20 ms until 4 s after the attack.\n\
            - Attackers and good clients have machines of their own where it matters; here attackers give way to everybody (nice 19), and who measures\n  \
              lookups goes first (nice -10, where that is allowed).\n\
            - One change, from outside: the server's CPU time for `Drain`, one call at a time on one connection, of instances all over one\n  \
              service. It includes reading the call, planning, storing in memory, the change itself, and answering. In the registry alone: one\n  \
              observation carried out, in this process; what is planned and answered is not part of it.\n\
            - Namespaces over the wire need a connection and a handshake each; 16 clients open, register and close. The registry alone plans and\n  \
              carries out one registration each. The plot has the time per namespace since the point before.\n\
            - Snapshots and digests are in postcard, of the newest version that each release speaks, and received without being decoded; bytes are\n  \
              those of all frames both ways, handshakes included. Memory is the most that the server had resident more than before.\n\
            - Pairs are a client and an instance of its subset. Forced are, for each instance that goes, its pairs, and for each that comes, 95 % of\n  \
              the mean: fewer cannot be moved.\n\
            - Durable means: SQLite with `synchronous=FULL`, etcd with its fsync, both on the disk that holds the build.\n"
        )
    }
}

/// Tells how far the run is.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// A page, for whoever ran the program.
pub(crate) fn page(text: &str) {
    println!("{text}");
}

/// A child's line to its parent.
pub(crate) fn line(text: &str) {
    use std::io::Write as _;
    // A parent that is gone is noticed at the standard input.
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// Why the run failed.
pub(crate) fn complain(error: &Failure) {
    eprintln!("error: {error}");
}
