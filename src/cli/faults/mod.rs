//! `tidewater faults`: hurts a running cluster on purpose, node by node, and says who obeyed.
//!
//! Both ends of a cut are told, since either is enough and one may be out of reach; what happens to packets on their way out only their
//! sender can do. Exit code 1: something that was wanted has not come about; nothing is taken back then, the answer says what is on.

mod order;
pub mod words;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::args::Output;
use super::args::faults::{FaultsArgs, FaultsVerb};
use super::render::{self, columns};
use super::status::Census;
use super::{CliError, EXIT_FAILED, EXIT_UNKNOWN, connect, print};
use crate::client::{Client, ClientError};
use crate::data::consistency::Consistency;
use crate::data::op::{Outcome, RequestError};
use crate::wire::fault::FaultStatus;

use order::{Part, Plan};

pub async fn run(args: FaultsArgs) -> Result<ExitCode, CliError> {
    let connect = args.verb.connect();
    let client = connect::connect(connect, Consistency::default()).await?;
    let code = match args.verb {
        FaultsVerb::Show(_) => show(&client, connect.timeout, connect.output).await?,
        _ => {
            let (layout, _) = client.layout();
            let plan = order::plan(&args.verb, &layout)?;
            let told = give(&client, &plan).await;
            tell(&plan, &told, connect.output)?
        }
    };
    client.close();
    Ok(code)
}

/// A node that is to stop or die has done so this long after it said that it would, unless its machine is very busy.
const SOON: Duration = Duration::from_millis(150);

type Told = Result<FaultStatus, ClientError>;

/// All at once; the answers stand in the order of the parts.
async fn give(client: &Client, plan: &Plan) -> Vec<Told> {
    let mut asked = JoinSet::new();
    for (at, part) in plan.parts.iter().enumerate() {
        let (client, node, order) = (client.clone(), part.node.id, part.order.clone());
        asked.spawn(async move { (at, client.fault(node, order).await) });
    }
    let mut told = asked.join_all().await;
    if told.iter().any(|(_, told)| told.as_ref().is_ok_and(|status| status.soon.is_some())) {
        // Who reads that it is done may rely on it.
        tokio::time::sleep(SOON).await;
    }
    told.sort_by_key(|(at, _)| *at);
    told.into_iter().map(|(_, told)| told).collect()
}

/// What came of one part.
enum Fate {
    Done,
    /// Not here, but where it is enough.
    Elsewhere(String),
    /// It takes no orders, and that is fine.
    Nothing,
    Missing(String),
}

fn fate(part: &Part, told: &Told, plan: &Plan, all: &[Told]) -> Fate {
    let error = match told {
        Ok(_) => return Fate::Done,
        Err(error) => error,
    };
    if part.may_refuse && matches!(error.refusal(), Some(RequestError::FaultRefused(_))) {
        return Fate::Nothing;
    }
    let done = |node| plan.parts.iter().zip(all).any(|(other, told)| other.node.id == node && told.is_ok());
    let why = why(error);
    match !part.instead.is_empty() && part.instead.iter().all(|node| done(*node)) {
        true => Fate::Elsewhere(why),
        false => Fate::Missing(why),
    }
}

fn why(error: &ClientError) -> String {
    match error {
        ClientError::NoAnswer { last, outcome: Outcome::Unknown, .. } => format!("{last}; it may have been done"),
        ClientError::NoAnswer { last, .. } => last.clone(),
        other => other.to_string(),
    }
}

fn tell(plan: &Plan, told: &[Told], output: Output) -> Result<ExitCode, CliError> {
    let fates: Vec<Fate> =
        plan.parts.iter().zip(told).map(|(part, told_one)| fate(part, told_one, plan, told)).collect();
    let nobody = fates.iter().all(|fate| matches!(fate, Fate::Nothing));
    let done = !nobody && !fates.iter().any(|fate| matches!(fate, Fate::Missing(_)));
    let unknown = told.iter().any(|told| told.as_ref().is_err_and(|error| error.outcome() == Outcome::Unknown));
    match output {
        Output::Text => {
            let row = |(part, fate): (&Part, &Fate)| {
                let what = match fate {
                    Fate::Done => "done".to_owned(),
                    Fate::Elsewhere(why) => format!("not done here, but the other side is enough: {why}"),
                    Fate::Nothing => "takes no orders for faults (--allow-faults): nothing to heal".to_owned(),
                    Fate::Missing(why) => format!("NOT DONE: {why}"),
                };
                vec![format!("  {}", part.node.name), what]
            };
            let rows: Vec<_> = plan.parts.iter().zip(&fates).map(row).collect();
            print(&format!("{}\n{}", plan.title, columns(&rows)))?;
        }
        Output::Json => {
            let node = |((part, fate), told): ((&Part, &Fate), &Told)| {
                let why = match fate {
                    Fate::Elsewhere(why) | Fate::Missing(why) => Some(why.as_str()),
                    Fate::Done | Fate::Nothing => None,
                };
                json!({
                    "name": part.node.name, "done": matches!(fate, Fate::Done),
                    "missing": matches!(fate, Fate::Missing(_)), "why": why,
                    "faults": told.as_ref().ok().map(words::json),
                })
            };
            let nodes: Vec<_> = plan.parts.iter().zip(&fates).zip(told).map(node).collect();
            print(&format!("{}\n", json!({ "order": plan.title, "done": done, "nodes": nodes })))?;
        }
    }
    Ok(match (done, unknown) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(EXIT_UNKNOWN),
        (false, false) => ExitCode::from(EXIT_FAILED),
    })
}

async fn show(client: &Client, timeout: Duration, output: Output) -> Result<ExitCode, CliError> {
    let (layout, _) = client.layout();
    let mut rows = Vec::new();
    let mut nodes = Vec::new();
    for (member, status) in Census::take(client, timeout).await.nodes {
        let lines = match &status {
            Ok(status) => match &status.faults {
                Some(faults) if faults.is_healed() && faults.counts == Default::default() => vec!["no faults".into()],
                Some(faults) => {
                    let mut lines = words::lines(faults);
                    if lines.is_empty() {
                        lines.push("no faults now".into());
                    }
                    lines.extend(words::counts(faults));
                    lines
                }
                None => vec!["takes no orders for faults (--allow-faults)".into()],
            },
            Err(why) => vec![format!("does not answer: {why}")],
        };
        rows.extend(lines.into_iter().map(|line| vec![member.name.clone(), line]));
        nodes.push(match status {
            Ok(status) => json!({
                "name": member.name, "up": true, "allowed": status.faults.is_some(),
                "faults": status.faults.as_ref().map(words::json),
            }),
            Err(why) => json!({ "name": member.name, "up": false, "why": why }),
        });
    }
    match output {
        Output::Text => print(&columns(&rows))?,
        Output::Json => print(&format!("{}\n", json!({ "layout": layout.version, "nodes": nodes })))?,
    }
    Ok(ExitCode::SUCCESS)
}
