// Sums, and a check for numbers that are not finite.
//
//   sum           y[g] = the sum of x[4096 g .. 4096 (g + 1)], one workgroup each
//   sum_rows      y[g, c] = the sum of x[r, c] over rows 64 g .. 64 (g + 1), one invocation each
//   check_finite  flag = 1 if an element is infinite or NaN; check_finite_f16 is the same for f16
//                 Both load 16 bytes at a time, and their parts start at whole vec4s.
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
@group(0) @binding(2) var<storage, read> bits: array<vec4u>;
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

// Whether one of the first `rest` of the eight f16 numbers in `v` is not finite. The padding after
// the last number is undefined.
fn is_odd16(v: vec4u, rest: u32) -> bool {
    let first = vec4u(0u, 2u, 4u, 6u);
    let low = (v & vec4u(0x7c00u)) == vec4u(0x7c00u);
    let high = (v & vec4u(0x7c000000u)) == vec4u(0x7c000000u);
    return any((low & (first < vec4u(rest))) | (high & (first + 1u < vec4u(rest))));
}

@compute @workgroup_size(256)
fn check_finite_f16(at: Invocation) {
    let group = workgroup_index(at);
    let end = min((group + 1u) * 4096u, params.count);
    var found = false;
    for (var i = group * 4096u + 8u * at.lane; i < end; i += 2048u) {
        found = found || is_odd16(bits[i / 8u], end - i);
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
    for (var i = group * 4096u + 4u * at.lane; i < end; i += 1024u) {
        let is_odd = (bits[i / 4u] & vec4u(0x7f800000u)) == vec4u(0x7f800000u);
        let is_element = vec4u(0u, 1u, 2u, 3u) < vec4u(end - i);
        found = found || any(is_odd & is_element);
    }
    if found {
        atomicOr(&flag[0], 1u);
    }
}
