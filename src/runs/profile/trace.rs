//! A recording as a file of Chrome's trace events, which `chrome://tracing` and Perfetto open.

use serde_json::{Value, json};

use crate::device::profiler::{Call, Recording, Span};

const MICROSECONDS: f64 = 1e6;
/// The rows of the trace: steps above, kernels below.
const STEPS: u64 = 0;
const KERNELS: u64 = 1;

fn named(kind: &str, tid: u64, name: &str) -> Value {
    json!({"name": kind, "ph": "M", "pid": 0, "tid": tid, "args": {"name": name}})
}

fn event(name: &str, tid: u64, [start, end]: [f64; 2], arguments: Value) -> Value {
    json!({
        "name": name,
        "cat": if tid == STEPS { "step" } else { "kernel" },
        "ph": "X",
        "pid": 0,
        "tid": tid,
        "ts": start * MICROSECONDS,
        "dur": (end - start) * MICROSECONDS,
        "args": arguments,
    })
}

fn kernel(call: &Call, span: &Span, origin: f64) -> Value {
    let [reads, writes] = &call.work.shapes;
    let arguments = json!({
        "call": call.name,
        "number": span.call,
        "step": call.step + 1,
        "reads": reads,
        "writes": writes,
        "flops": call.work.flops,
        "bytes": call.work.bytes,
    });
    let name = span.launched.as_deref().unwrap_or(call.name);
    let times = [span.start - origin, span.end - origin];
    event(name, KERNELS, times, arguments)
}

/// The trace of `recording` on `device`. Times are in microseconds since the first kernel; a step
/// lasts from the start of its first kernel to the end of its last one. Each launch has the shapes,
/// FLOPs and bytes of its call.
pub fn trace(device: &str, recording: &Recording) -> Value {
    let starts = recording.spans.iter().map(|span| span.start);
    let origin = starts.fold(f64::INFINITY, f64::min);
    let mut events = vec![
        named("process_name", STEPS, device),
        named("thread_name", STEPS, "steps"),
        named("thread_name", KERNELS, "kernels"),
    ];
    let mut steps: Vec<(u64, [f64; 2])> = Vec::new();
    let mut kernels = Vec::with_capacity(recording.spans.len());
    for span in &recording.spans {
        let Some(call) = recording.calls.get(span.call) else {
            continue;
        };
        kernels.push(kernel(call, span, origin));
        match steps.iter_mut().find(|(step, _)| *step == call.step) {
            Some((_, [start, end])) => {
                *start = start.min(span.start);
                *end = end.max(span.end);
            }
            None => steps.push((call.step, [span.start, span.end])),
        }
    }
    events.extend(steps.iter().map(|&(step, [start, end])| {
        let name = format!("step {}", step + 1);
        event(&name, STEPS, [start - origin, end - origin], json!({}))
    }));
    events.extend(kernels);
    json!({"displayTimeUnit": "ms", "traceEvents": events})
}
