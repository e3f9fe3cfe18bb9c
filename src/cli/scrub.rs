//! `tidewater scrub`: every node compares its rows with the other owners', now; waits for all, and shows what came of it.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::args::{Output, ScrubArgs};
use super::progress::Progress;
use super::render::{self, columns};
use super::status::Census;
use super::{CliError, EXIT_FAILED, connect, print};
use crate::data::consistency::Consistency;
use crate::net::entropy;

const LOOK_EVERY: Duration = Duration::from_millis(300);

pub async fn run(args: ScrubArgs) -> Result<ExitCode, CliError> {
    let client = connect::connect(&args.connect, Consistency::default()).await?;
    let until = entropy::instant() + args.wait;
    let (layout, _) = client.layout();
    let mut deaf = Vec::new();
    for member in &layout.members {
        if let Err(error) = client.scrub(member.id).await {
            deaf.push(format!("{} does not answer: {error}", member.name));
        }
    }
    let json_wanted = args.connect.output == Output::Json;
    let progress = Progress::new("comparing", "partitions", None, json_wanted);
    let census = loop {
        let census = Census::take(&client, args.connect.timeout).await;
        let scrubs = || census.nodes.iter().filter_map(|(_, status)| Some(status.as_ref().ok()?.scrub));
        let done: u64 = scrubs().map(|scrub| scrub.partitions_done).sum();
        (progress.items()..done).for_each(|_| progress.advance(0));
        if !scrubs().any(|scrub| scrub.running) {
            break census;
        }
        if until.saturating_duration_since(entropy::instant()) < LOOK_EVERY {
            drop(progress);
            return Err(CliError::failed(
                "it is not done yet and goes on in the background: `tidewater status` tells how far it has come, --wait waits longer",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    drop(progress);
    client.close();
    let mut rows = vec![["NODE", "PARTITIONS", "ROWS", "SKIPPED", "FOUND"].map(str::to_owned).to_vec()];
    let mut well = deaf.is_empty();
    let mut nodes = Vec::new();
    for (member, status) in &census.nodes {
        let Ok(status) = status else {
            well = false;
            rows.push([&member.name[..], "-", "-", "-", "-"].map(str::to_owned).to_vec());
            continue;
        };
        let scrub = status.scrub;
        well &= scrub.findings == 0 && scrub.skipped == 0;
        let counts = [scrub.partitions_done, scrub.rows, scrub.skipped, scrub.findings].map(render::count);
        rows.push([vec![member.name.clone()], counts.to_vec()].concat());
        nodes.push(json!({
            "name": member.name, "partitions": scrub.partitions_done, "rows": scrub.rows,
            "skipped": scrub.skipped, "findings": scrub.findings,
        }));
    }
    match args.connect.output {
        Output::Text => {
            let notes: String = deaf.iter().map(|line| format!("{line}\n")).collect();
            print(&format!("{}{notes}", columns(&rows)))?;
        }
        Output::Json => print(&format!("{}\n", json!({ "well": well, "nodes": nodes })))?,
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}
