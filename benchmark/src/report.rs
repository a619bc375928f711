//! What was measured, as text: a paragraph, a line, or CSV.

use crate::load::Outcome;
use crate::options::Options;
use crate::workload::Workload;

/// The columns of the CSV form.
pub(crate) const CSV_HEADER: &str = "test,requests,errors,clients,threads,pipeline,names,seconds,per_second,\
mean_us,p50_us,p99_us,p99_9_us,max_us\n";

/// The text for one test, with its last newline.
pub(crate) fn report(options: &Options, workload: &Workload, outcome: &Outcome) -> String {
    let seconds = outcome.duration.as_secs_f64().max(1e-9);
    let replies = outcome.latencies.len();
    let per_second = replies as f64 / seconds;
    let quantile = |quantile: f64| outcome.latencies.value_at_quantile(quantile) as f64;
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    let (mean, max) = (outcome.latencies.mean(), outcome.latencies.max() as f64);
    let (clients, threads) = (options.clients, options.threads());
    let (pipeline, names, title) = (options.pipeline, options.names, &workload.title);
    let ms = |ns: f64| format!("{:.3}", ns / 1e6);
    if options.csv {
        let title = title.replace('"', "\"\"");
        let us = |ns: f64| format!("{:.1}", ns / 1e3);
        return format!(
            "\"{title}\",{replies},{},{clients},{threads},{pipeline},{names},{seconds:.3},{per_second:.0},\
             {},{},{},{},{}\n",
            outcome.errors,
            us(mean),
            us(p50),
            us(p99),
            us(p999),
            us(max)
        );
    }
    let latencies = format!("p50 {}, p99 {}, p99.9 {}, max {} ms", ms(p50), ms(p99), ms(p999), ms(max));
    if options.quiet {
        return format!("{title}: {per_second:.0} per second, {latencies}\n");
    }
    format!(
        "{title}\n  {replies} requests in {seconds:.2} s: {per_second:.0} per second\n  latency: mean {}, \
         {latencies}\n  {clients} clients on {threads} threads, pipeline {pipeline}, names {names}\n",
        ms(mean)
    )
}
