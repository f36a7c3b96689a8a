// Sums, and a check for numbers that are not finite.
//
//   sum           y[g] = the sum of x[4096 g .. 4096 (g + 1)], one workgroup each
//   sum_rows      y[g, c] = the sum of x[r, c] over rows 64 g .. 64 (g + 1), one invocation each
//   check_finite  flag = 1 if an element is infinite or NaN; check_finite_f16 does the same for f16
//
// A sum is repeated on its result until one number or row is left, so rounding errors grow with the
// logarithm of the length. A large x has several parts: y_offset is the index of a part's results.

#import grid

struct Params {
    // The number of elements of x, or of rows (sum_rows).
    count: u32,
    // sum_rows: elements per row.
    columns: u32,
    x_offset: u32,
    y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bits: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> flag: array<atomic<u32>>;

var<workgroup> scratch: array<f32, 256>;

@compute @workgroup_size(256)
fn sum(at: Invocation) {
    let group = workgroup_index(at);
    let end = min((group + 1u) * 4096u, params.count);
    var own = 0.0;
    for (var i = group * 4096u + at.lane; i < end; i += 256u) {
        own += x[params.x_offset + i];
    }
    scratch[at.lane] = own;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if at.lane < step {
            scratch[at.lane] += scratch[at.lane + step];
        }
        workgroupBarrier();
    }
    if at.lane == 0u && group * 4096u < params.count {
        y[params.y_offset + group] = scratch[0];
    }
}

@compute @workgroup_size(256)
fn sum_rows(at: Invocation) {
    let i = index256(at);
    let first = i / params.columns * 64u;
    if first >= params.count {
        return;
    }
    let end = min(first + 64u, params.count);
    let column = params.x_offset + i % params.columns;
    var own = 0.0;
    for (var row = first; row < end; row++) {
        own += x[column + row * params.columns];
    }
    y[params.y_offset + i] = own;
}

// check_finite for f16 numbers, two per word. The padding after the last number is undefined.
@compute @workgroup_size(256)
fn check_finite_f16(at: Invocation) {
    let group = workgroup_index(at);
    let end = min((group + 1u) * 4096u, params.count);
    var found = false;
    for (var i = group * 4096u + 2u * at.lane; i < end; i += 512u) {
        let pair = bits[i / 2u];
        found = found || (pair & 0x7c00u) == 0x7c00u;
        found = found || (i + 1u < end && (pair & 0x7c000000u) == 0x7c000000u);
    }
    if found {
        atomicOr(&flag[0], 1u);
    }
}

// Tests the bits of the exponent, since a compiler may assume that all numbers are finite.
@compute @workgroup_size(256)
fn check_finite(at: Invocation) {
    let group = workgroup_index(at);
    let end = min((group + 1u) * 4096u, params.count);
    var found = false;
    for (var i = group * 4096u + at.lane; i < end; i += 256u) {
        found = found || (bits[params.x_offset + i] & 0x7f800000u) == 0x7f800000u;
    }
    if found {
        atomicOr(&flag[0], 1u);
    }
}
