//! What becomes of many deletes while an owner is away: nothing returns, and in the end nothing is left of them.
//!
//! A cluster of three is filled; one node is killed; every key is deleted; the node comes back with all that it held. Told: how soon all
//! is level, how many values returned (every owner is asked for every key), how soon no delete row is left, and how much disk the
//! stores take: full, when the last delete row has gone, and after RocksDB has compacted them.
//!
//! `cargo build && cargo run -p bench --bin deletes -- [--keys N] [--value-bytes N]`

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::cluster::{Cluster, NODES, Outcome};
use tidewater::cli::status::Census;
use tidewater::data::consistency::{Consistency, Level};
use tidewater::data::id::{hash64, mix64};
use tidewater::{Client, ClientError};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The node that is away.
const VICTIM: usize = 2;
const CALLERS: usize = 64;
/// Below a node's folder: what RocksDB keeps.
const ENGINE: &str = "store";
/// The last delete row must have gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(300);

fn main() -> Outcome<()> {
    let (mut keys, mut value_bytes) = (100_000, 1_000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|word| word.parse::<usize>().ok()).filter(|number| *number > 0);
        match (word.as_str(), number) {
            ("--keys", Some(number)) => keys = number,
            ("--value-bytes", Some(number)) => value_bytes = number,
            (word, _) => {
                eprintln!(
                    "What becomes of many deletes while an owner is away.\n\nusage: [--keys N (default 100000)] [--value-bytes N (default \
                     1000)]"
                );
                std::process::exit(if matches!(word, "--help" | "-h") { 0 } else { 2 });
            }
        }
    }
    tokio::runtime::Runtime::new()?.block_on(run(keys, value_bytes))
}

async fn run(keys: usize, value_bytes: usize) -> Outcome<()> {
    println!("{NODES} nodes, all owners; {keys} keys with values of {value_bytes} bytes");
    let mut cluster = Cluster::start(false).await?;
    let each = Each { keys, client: cluster.client.clone() };
    each.call(move |client, key| {
        let value = noise(&key, value_bytes);
        async move { client.set(key, value).await.map(|_| 0) }
    })
    .await?;
    cluster.until_level().await?;
    println!("  filled          {}", sizes(&cluster)?);

    cluster.kill(VICTIM)?;
    let began = Instant::now();
    each.call(async |client, key| client.delete(key).await.map(|answer| u64::from(answer.value))).await.map(
        |deleted| {
            println!(
                "  deleted         {deleted} keys in {:.1} s, node {} away",
                began.elapsed().as_secs_f64(),
                VICTIM + 1
            );
        },
    )?;

    let began = Instant::now();
    cluster.spawn(VICTIM)?;
    cluster.until_open(VICTIM).await?;
    cluster.until_level().await?;
    println!("  level after     {:.1} s", began.elapsed().as_secs_f64());
    let gone = async |cluster: &Cluster| -> Outcome<u64> {
        let census = Census::take(&cluster.client, Duration::from_secs(1)).await;
        let told: Result<Vec<_>, _> =
            census.nodes.iter().map(|(_, status)| status.as_ref().map(|told| told.garbage)).collect();
        Ok(told.map_err(|error| error.clone())?.iter().sum())
    };
    println!("  delete rows     {} over all nodes", gone(&cluster).await?);
    let all = Consistency { read: Level::All, ..Consistency::default() };
    let careful = Each { keys, client: cluster.client.with(all) };
    let back =
        careful.call(async |client, key| client.get(key).await.map(|answer| u64::from(answer.value.is_some()))).await?;
    println!("  returned        {back} of {keys}, every owner asked");
    let mut returned = back;
    while gone(&cluster).await? > 0 {
        if began.elapsed() > GONE_WITHIN {
            return Err(format!("{} delete rows are left after {GONE_WITHIN:?}", gone(&cluster).await?).into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    println!("  none left after {:.1} s", began.elapsed().as_secs_f64());
    let back =
        careful.call(async |client, key| client.get(key).await.map(|answer| u64::from(answer.value.is_some()))).await?;
    println!("  returned        {back} of {keys}, every owner asked again");
    returned += back;
    println!("  disk            {}", sizes(&cluster)?);
    for at in 0..cluster.nodes.len() {
        cluster.stop(at)?;
    }
    for node in &cluster.nodes {
        compact(&node.store.join(ENGINE))?;
    }
    println!("  compacted       {}", sizes(&cluster)?);
    if returned > 0 { Err(format!("{returned} deleted values returned").into()) } else { Ok(()) }
}

/// Bytes that do not compress.
fn noise(key: &str, bytes: usize) -> Vec<u8> {
    let mut state = hash64(key.as_bytes());
    (0..bytes)
        .map(|_| {
            state = mix64(state.wrapping_add(1));
            state as u8
        })
        .collect()
}

/// Calls for every key, many at a time.
struct Each {
    keys: usize,
    client: Client,
}

impl Each {
    /// The sum of what came of it.
    async fn call<F, A>(&self, call: F) -> Outcome<u64>
    where
        F: Fn(Client, String) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Result<u64, ClientError>> + Send,
    {
        let next = Arc::new(AtomicU64::new(0));
        let keys = self.keys as u64;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (next, client, call) = (next.clone(), self.client.clone(), call.clone());
            callers.spawn(async move {
                let mut sum = 0;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= keys {
                        return Ok::<u64, ClientError>(sum);
                    }
                    sum += call(client.clone(), format!("key:{at:08}")).await?;
                }
            });
        }
        let mut sum = 0;
        while let Some(done) = callers.join_next().await {
            sum += done??;
        }
        Ok(sum)
    }
}

/// The bytes of each node's store.
fn sizes(cluster: &Cluster) -> Outcome<String> {
    let mut text = Vec::new();
    for node in &cluster.nodes {
        let (mut tables, mut logs) = (0, 0);
        for entry in fs::read_dir(node.store.join(ENGINE))? {
            let entry = entry?;
            let bytes = entry.metadata().map(|of| of.len()).unwrap_or(0);
            match entry.path().extension().and_then(|extension| extension.to_str()) {
                Some("sst") => tables += bytes,
                Some("log") => logs += bytes,
                _ => {}
            }
        }
        text.push(format!("{:.1} + {:.1}", tables as f64 / 1e6, logs as f64 / 1e6));
    }
    Ok(format!("{} MB in tables and write-ahead logs", text.join(", ")))
}

/// What RocksDB does by itself some time, done at once.
fn compact(store: &Path) -> Outcome<()> {
    let mut options = rocksdb::Options::default();
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    let names = rocksdb::DB::list_cf(&options, store)?;
    let spaces = names.iter().map(|name| rocksdb::ColumnFamilyDescriptor::new(name, options.clone()));
    let store = rocksdb::DB::open_cf_descriptors(&options, store, spaces)?;
    for name in &names {
        let space = store.cf_handle(name).ok_or("a column family that was just listed")?;
        store.flush_cf(&space)?;
        store.compact_range_cf(&space, None::<&[u8]>, None::<&[u8]>);
    }
    Ok(())
}
