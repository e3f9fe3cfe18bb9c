//! What is written can be read by others: the page by an XML parser, the tables by a CSV reader, the results by a
//! comparison.
//!
//! `REPORT_SAMPLES=FOLDER cargo test -p bench --lib samples` keeps the reports of the samples, to be looked at after a
//! change of the look.

mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use roxmltree::{Document, Node, ParsingOptions};

use super::{compare, facts, page, read, summary, write};
use crate::results::{FORMAT, FaultSpan, Operation, Results};

/// The page, read strictly: all elements closed, all text escaped.
fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).expect("a well-formed page")
}

fn page_of(results: &[Results]) -> String {
    // The one element of HTML in the page that is not closed.
    page::page(results, &facts::labels(results))
        .replace("<meta charset=\"utf-8\">", "")
        .replace("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">", "")
}

fn with_class<'a, 'i>(within: Node<'a, 'i>, class: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    let has = move |node: &Node| node.attribute("class").is_some_and(|all| all.split(' ').any(|one| one == class));
    within.descendants().filter(has)
}

fn text(node: Node) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

/// Every number that a drawing is made of is one, and within it or near its edge.
fn assert_drawn_well(document: &Document) {
    for svg in document.descendants().filter(|node| node.has_tag_name("svg") || node.tag_name().name() == "svg") {
        let Some(view) = svg.attribute("viewBox") else { continue };
        let view: Vec<f64> = view.split(' ').map(|number| number.parse().expect("a number")).collect();
        for node in svg.descendants() {
            for name in ["x", "x1", "x2", "cx", "y", "y1", "y2", "cy", "width", "height"] {
                let Some(value) = node.attribute(name) else { continue };
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{name}={value:?} of {:?}", node.tag_name()));
                let most = if name.starts_with(['y', 'h']) || name == "cy" { view[3] } else { view[2] };
                assert!((-1.0..=most + 1.0).contains(&value), "{name}={value} is outside of {view:?}");
            }
            let path = node.attribute("d").unwrap_or_default();
            let odd = path.chars().find(|letter| !letter.is_ascii_digit() && !"MLHVZmh .-".contains(*letter));
            assert_eq!(odd, None, "a path has only numbers: {path}");
        }
    }
}

#[test]
fn a_page_has_every_part() {
    let page = page_of(&[sample::outage("quorum", 150, 1.0)]);
    let document = parse(&page);
    assert_drawn_well(&document);
    let heads: Vec<String> = document.descendants().filter(|node| node.has_tag_name("h2")).map(text).collect();
    let expected = [
        "Verdict",
        "In numbers",
        "Over time",
        "Latency",
        "Staleness",
        "Coming level again",
        "What answers had behind them",
        "Errors",
        "How it was made",
    ];
    assert_eq!(heads, expected);
    assert_eq!(with_class(document.root(), "kept").count(), 1);
    let wide = with_class(document.root(), "wide").next().expect("a drawing over time");
    let lanes: Vec<String> = with_class(wide, "lane").map(text).collect();
    assert!(lanes[0].starts_with("partition n1 | n2,n3") && lanes[2].starts_with("kill n2"), "{lanes:?}");
    let names: Vec<String> = with_class(wide, "name").map(text).collect();
    let expected =
        ["answers per second", "latency: p50, p99, p99.9", "errors per second", "mutations behind, over all owners"];
    assert_eq!(names, expected);
    assert_eq!(with_class(wide, "shade").count(), 3 * names.len(), "each fault through each panel");
    assert_eq!(with_class(wide, "hint").count(), 150);
    let ticks: Vec<String> = with_class(document.root(), "tick").map(text).collect();
    for wanted in ["99.99 %", "10 ms", "none"] {
        assert!(ticks.iter().any(|tick| tick == wanted), "{wanted} is on an axis: {ticks:?}");
    }
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"), "no network");
    assert!(!page.contains("<script"), "no script");
}

#[test]
fn text_of_a_run_cannot_become_markup() {
    let mut run = sample::broken();
    let evil = "</text><script>alert('&')</script>";
    run.setting.title = evil.to_owned();
    run.made.command = evil.to_owned();
    run.faults = vec![FaultSpan { from_s: 3.0, to_s: None, text: evil.to_owned() }];
    run.operations[0].name = evil.to_owned();
    run.operations[0].errors = vec![(evil.to_owned(), 3)];
    run.receipts[0].operation = evil.to_owned();
    run.staleness[0].read_level = evil.to_owned();
    for results in [vec![run.clone()], vec![run, sample::outage("other", 30, 1.0)]] {
        let page = page_of(&results);
        let document = parse(&page);
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("script")).count(), 0);
        assert!(
            document.descendants().filter(Node::is_text).any(|node| node.text() == Some(evil)),
            "and it is still said"
        );
        let verdict = with_class(document.root(), "broken").next().expect("a verdict");
        assert!(text(verdict).contains("acknowledged \"<b>3</b>\" & not there"));
        assert!(text(verdict).contains("And 4 more"), "14 examples, 10 of them told");
    }
}

#[test]
fn empty_results_are_said_to_be_empty() {
    let page = page_of(&[Results { format: FORMAT, ..Results::default() }]);
    let document = parse(&page);
    for said in
        ["No second was measured.", "No operation was answered.", "No read could be judged.", "gives no receipts"]
    {
        assert!(page.contains(said), "{said}");
    }
    assert_eq!(with_class(document.root(), "open").count(), 1, "nothing checked is not a good verdict");
    assert_eq!(with_class(document.root(), "kept").count(), 0);

    let page = page_of(&[sample::bare()]);
    assert_drawn_well(&parse(&page));
    assert!(page.contains("p50 900 µs"), "one answer in one second is drawn");
    page_of(&[sample::bare(), sample::outage("other", 150, 1.0)]);
}

#[test]
fn numbers_that_are_none_do_not_reach_a_drawing() {
    let mut run = sample::outage("odd", 20, 1.0);
    run.cost.own_cpu_us_per_operation = f64::NAN;
    run.setting.measured_s = f64::INFINITY;
    run.slices[3].at_s = f64::NAN;
    run.healings[0].behind[2].0 = f64::NAN;
    run.healings[1].level_after_s = Some(f64::INFINITY);
    run.operations[0].latency.cdf[4].1 = f64::NAN;
    run.faults[0].from_s = f64::NAN;
    assert_drawn_well(&parse(&page_of(&[run.clone()])));
    assert!(summary(&run).contains("throughput"));
}

#[test]
fn a_run_of_hours_is_thinned_and_told_to_be() {
    let page = page_of(&[sample::outage("long", 7_200, 1.0)]);
    let document = parse(&page);
    assert_drawn_well(&document);
    assert!(page.contains("Each point is 12 seconds"));
    assert_eq!(with_class(document.root(), "band").count(), 2, "the range of the seconds, in both sizes");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn thousands_of_kinds_do_not_fill_the_page() {
    let mut run = sample::outage("many", 60, 1.0);
    run.operations[0].errors = (0..5_000).map(|at| (format!("refused by node {at}"), at + 1)).collect();
    run.faults = (0..1_000)
        .map(|at| FaultSpan { from_s: f64::from(at) * 0.05, to_s: None, text: format!("cut {at}") })
        .collect();
    let page = page_of(&[run.clone()]);
    assert_drawn_well(&parse(&page));
    assert!(page.contains("And 4941 more, in results.json") && page.contains("refused by node 4999"));
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let summary = summary(&run);
    assert!(summary.lines().count() < 60, "{summary}");
    assert!(summary.contains("and 4993 more, in report.html"), "{summary}");
}

/// The cells of the rows that begin with this.
fn row(document: &Document, head: &str) -> Vec<String> {
    let rows = document.descendants().filter(|node| node.has_tag_name("tr"));
    let cells = rows.map(|row| row.children().filter(Node::is_element).map(text).collect::<Vec<String>>());
    cells.into_iter().find(|cells| cells.first().is_some_and(|first| first == head)).expect("the row")
}

#[test]
fn a_comparison_says_ratios_and_lays_curves_over_each_other() {
    let (mut first, mut second) = (sample::outage("one", 150, 1.0), sample::outage("two", 150, 2.0));
    first.slices.iter_mut().for_each(|slice| slice.done = 8_000);
    second.slices.iter_mut().for_each(|slice| slice.done = 10_000);
    let page = page_of(&[first, second]);
    let document = parse(&page);
    assert_drawn_well(&document);
    assert_eq!(row(&document, "throughput, mean"), ["throughput, mean", "8,000/s", "10,000/s", "1.25×"]);
    assert_eq!(row(&document, "server CPU per operation"), ["server CPU per operation", "41.7 µs", "83.4 µs", "2.00×"]);
    let ratios = row(&document, "× the first");
    assert_eq!(ratios[2], "1.00×", "as many answers");
    assert!(ratios[4..].iter().all(|ratio| ratio == "2.00×" || ratio == "1.99×"), "all twice as slow: {ratios:?}");
    let wide = with_class(document.root(), "wide").next().expect("a drawing over time");
    assert_eq!(with_class(wide, "line").count(), 2 * 6, "both runs in each panel");
    assert_eq!(with_class(wide, "lane").count(), 3, "hurt alike: the faults are named once");
    assert_eq!(row(&document, "target").len(), 3);
}

#[test]
fn runs_hurt_differently_have_their_faults_in_their_colours() {
    let (first, mut second) = (sample::outage("same", 150, 1.0), sample::outage("same", 150, 2.0));
    second.faults.truncate(1);
    second.faults[0].from_s += 20.0;
    let page = page_of(&[first, second]);
    let document = parse(&page);
    let wide = with_class(document.root(), "wide").next().expect("a drawing over time");
    let bars: Vec<&str> = with_class(wide, "lane-bar").filter_map(|bar| bar.attribute("class")).collect();
    assert_eq!(bars, ["lane-bar c0", "lane-bar c0", "lane-bar c1", "lane-bar c0"]);
    assert!(page.contains("same (2)"), "runs of one title are told apart");
}

fn lines(path: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).expect("a file");
    reader.records().collect::<Result<Vec<_>, _>>().expect("every row has as many fields as the first")
}

#[test]
fn what_is_written_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = sample::outage("comma, \"quote\"\nline", 150, 1.0);
    run.slices[1].behind = None;
    run.healings[1].behind.clear();
    let written = write(std::slice::from_ref(&run), folder.path()).expect("written");
    assert_eq!(written.files.len(), 8);
    assert!(written.files.iter().all(|file| file.exists()) && written.page == folder.path().join("report.html"));
    let count = |name: &str| lines(&folder.path().join(name)).len() - 1;
    assert_eq!(count("slices.csv"), 150);
    assert_eq!(count("operations.csv"), 3);
    assert_eq!(count("latency_cdf.csv"), run.operations.iter().map(|one| one.latency.cdf.len()).sum::<usize>());
    assert_eq!(count("staleness.csv"), 20);
    assert_eq!(count("healing.csv"), 32 + 1, "one that nobody watched has a row too");
    assert_eq!(count("receipts.csv"), 9);
    let slices = lines(&folder.path().join("slices.csv"));
    let heads = ["run", "at_s", "done", "errors", "stale", "judged", "p50_us", "p99_us", "p999_us", "max_us", "behind"];
    assert_eq!(slices[0].iter().collect::<Vec<_>>(), heads);
    assert_eq!(&slices[1][0], "comma, \"quote\"\nline");
    assert_eq!(&slices[2][10], "", "not asked is not 0");
    assert_eq!(&slices[3][2], run.slices[2].done.to_string());
    let operations = lines(&folder.path().join("operations.csv"));
    assert_eq!((&operations[1][12], &operations[1][13]), ("422", "not enough owners: 310; timeout: 112"));
    // Without the curves: a share may differ in its last digit.
    let read = read(folder.path()).expect("the results");
    assert_eq!((read.slices, read.check, read.healings), (run.slices, run.check, run.healings));
    assert_eq!((read.faults, read.receipts, read.staleness), (run.faults, run.receipts, run.staleness));
}

#[test]
fn a_comparison_refuses_what_it_cannot_compare() {
    let folder = tempfile::tempdir().expect("a folder");
    let within = |name: &str| folder.path().join(name);
    write(&[sample::outage("a", 20, 1.0)], &within("a")).expect("written");
    write(&[sample::outage("b", 20, 2.0)], &within("b")).expect("written");
    let both = [within("a"), within("b").join("results.json")];
    let written = compare(&both, &within("both")).expect("compared");
    assert!(fs::read_to_string(written.page).expect("a page").contains("2 runs compared"));
    assert_eq!(lines(&within("both").join("slices.csv")).len(), 41);
    assert!(within("both").join("results-2.json").exists());

    let refused = |paths: &[PathBuf], out: &str| compare(paths, &within(out)).expect_err("refused");
    assert!(refused(&both[..1], "x").contains("2 to 6 runs, 1 given"));
    assert!(refused(&both, "a").contains("choose another folder"));
    assert!(refused(&[within("a"), within("none")], "x").contains("name a folder that a run has written"));
    let put = |text: &str| fs::write(within("odd.json"), text).expect("written");
    put("{\"format\": 99}");
    let said = refused(&[within("a"), within("odd.json")], "x");
    assert!(said.contains("format 99, this version reads format 1") && said.contains("odd.json"), "{said}");
    put("{\"format\": 1}");
    assert!(refused(&[within("a"), within("odd.json")], "x").contains("damaged results"));
    put("hello");
    assert!(refused(&[within("a"), within("odd.json")], "x").contains("these are no results of a run"));
    assert!(!within("x").exists(), "nothing is written when something is refused");
    assert!(write(&[], &within("x")).is_err());
}

#[test]
fn the_summary_says_what_one_wants_to_know() {
    let run = sample::outage("quorum, partition and kill", 150, 1.0);
    let said = summary(&run);
    assert!(said.starts_with("quorum, partition and kill: tidewater, 3 nodes, native\n"), "{said}");
    for wanted in [
        "✓ Kept: nothing lost",
        "1,136,333 answers were compared",
        "while no fault was on",
        "40 s to 70 s: partition n1 | n2,n3",
        "      552  timeout\n",
        "read       quorum  733,021  ",
        "write quorum, read one: ",
        "at 70 s: level after 4.2 s (612 mutations behind at most)",
        "41.7 µs of CPU per operation, 312 MiB of memory",
        "31 % of all cores",
    ] {
        let wanted_line = said.contains(wanted);
        assert!(wanted_line, "{wanted:?} is missing in:\n{said}");
    }
    let ends: Vec<usize> =
        said.lines().skip_while(|line| !line.starts_with("latency")).take(4).map(|line| line.chars().count()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "numbers are aligned to the right: {ends:?}\n{said}");

    let said = summary(&sample::broken());
    assert!(said.contains("✗ Broken: 14 acknowledged writes lost") && said.contains("  - key user0003"), "{said}");
    assert!(summary(&Results::default()).contains("no second was measured"));
    let busy = Results { cost: crate::results::Cost { own_cpu_share: 0.6, ..run.cost.clone() }, ..run };
    assert!(summary(&busy).contains("This is much"));
}

/// Eleven operations: more than there are colours in one drawing.
fn manifold() -> Results {
    let mut run = sample::outage("many operations", 45, 1.1);
    let first = run.operations[0].clone();
    let more = ["one", "two", "three", "all", "local-quorum", "each-quorum", "any", "4"];
    run.operations.extend(more.map(|level| Operation { level: level.to_owned(), ..first.clone() }));
    run
}

#[test]
fn samples() {
    let kept = std::env::var_os("REPORT_SAMPLES").map(PathBuf::from);
    let passing = tempfile::tempdir().expect("a folder");
    let folder = kept.as_deref().unwrap_or(passing.path());
    let one = sample::outage("quorum, partition and kill", 150, 1.0);
    let two = sample::outage("all, partition and kill", 150, 2.1);
    let mut elsewhere = sample::outage("redis cluster, kill", 120, 0.8);
    elsewhere.faults.truncate(1);
    elsewhere.receipts.clear();
    let samples = [
        ("one", vec![one.clone()]),
        ("two", vec![one.clone(), two]),
        ("different", vec![one, elsewhere]),
        ("broken", vec![sample::broken()]),
        ("bare", vec![sample::bare()]),
        ("empty", vec![Results::default()]),
        ("long", vec![sample::outage("two hours", 7_200, 1.0)]),
        ("many", vec![manifold()]),
    ];
    for (name, results) in samples {
        let written = write(&results, &folder.join(name)).expect("written");
        let page = fs::metadata(written.page).expect("a page").len();
        assert!((5_000..1_000_000).contains(&page), "{name}: {page} bytes");
        fs::write(folder.join(name).join("summary.txt"), summary(&results[0])).expect("written");
    }
}
