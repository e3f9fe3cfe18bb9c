//! The numbers as CSV, for those who draw their own. Every sheet begins with the run, so that those of several can be
//! put together. A field is empty where nothing was measured.

use std::io;

use csv::Writer;

use super::facts;
use crate::results::Results;

type Sheet = Writer<Vec<u8>>;

/// All sheets: file name and content.
pub fn all(results: &[Results], labels: &[String]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    type Fill = fn(&mut Sheet, &str, &Results) -> csv::Result<()>;
    let sheets: [(&'static str, &[&str], Fill); 6] = [
        (
            "slices.csv",
            &["run", "at_s", "done", "errors", "stale", "judged", "p50_us", "p99_us", "p999_us", "max_us", "behind"],
            slices,
        ),
        (
            "operations.csv",
            &[
                "run",
                "operation",
                "level",
                "count",
                "mean_us",
                "min_us",
                "p50_us",
                "p90_us",
                "p99_us",
                "p999_us",
                "p9999_us",
                "max_us",
                "errors",
                "errors_by_kind",
            ],
            operations,
        ),
        ("latency_cdf.csv", &["run", "operation", "level", "us", "share"], latency_cdf),
        (
            "staleness.csv",
            &[
                "run",
                "write_level",
                "read_level",
                "from_us",
                "to_us",
                "reads",
                "stale",
                "reads_healthy",
                "stale_healthy",
            ],
            staleness,
        ),
        ("healing.csv", &["run", "healing", "healed_at_s", "level_after_s", "since_healed_s", "behind"], healing),
        ("receipts.csv", &["run", "operation", "level", "owners", "stand_ins", "count"], receipts),
    ];
    let mut all = Vec::new();
    for (name, heads, fill) in sheets {
        let mut sheet = Writer::from_writer(Vec::new());
        sheet.write_record(heads)?;
        for (run, label) in results.iter().zip(labels) {
            fill(&mut sheet, label, run)?;
        }
        let content = sheet.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        all.push((name, content));
    }
    Ok(all)
}

fn slices(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for one in &results.slices {
        sheet.serialize((
            run,
            one.at_s,
            one.done,
            one.errors,
            one.stale,
            one.judged,
            one.p50_us,
            one.p99_us,
            one.p999_us,
            one.max_us,
            one.behind,
        ))?;
    }
    Ok(())
}

fn operations(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for one in &results.operations {
        let kinds: Vec<String> = one.errors.iter().map(|(said, number)| format!("{said}: {number}")).collect();
        let latency = &one.latency;
        sheet.serialize((
            run,
            &one.name,
            &one.level,
            (latency.count, latency.mean_us, latency.min_us, latency.p50_us, latency.p90_us),
            (latency.p99_us, latency.p999_us, latency.p9999_us, latency.max_us),
            facts::operation_errors(one),
            kinds.join("; "),
        ))?;
    }
    Ok(())
}

fn latency_cdf(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for one in &results.operations {
        for (us, share) in &one.latency.cdf {
            sheet.serialize((run, &one.name, &one.level, us, share))?;
        }
    }
    Ok(())
}

fn staleness(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for one in &results.staleness {
        for bucket in &one.buckets {
            let span = (bucket.from_us, bucket.to_us);
            let counts = (bucket.reads, bucket.stale, bucket.reads_healthy, bucket.stale_healthy);
            sheet.serialize((run, &one.write_level, &one.read_level, span, counts))?;
        }
    }
    Ok(())
}

fn healing(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for (at, one) in results.healings.iter().enumerate() {
        let head = (run, at + 1, one.healed_at_s, one.level_after_s);
        // One that was not watched is still told.
        if one.behind.is_empty() {
            sheet.serialize((head, None::<f64>, None::<u64>))?;
        }
        for (since_s, behind) in &one.behind {
            sheet.serialize((head, since_s, behind))?;
        }
    }
    Ok(())
}

fn receipts(sheet: &mut Sheet, run: &str, results: &Results) -> csv::Result<()> {
    for one in &results.receipts {
        sheet.serialize((run, &one.operation, &one.level, one.owners, one.stand_ins, one.count))?;
    }
    Ok(())
}
