// NT-Xent (Chen et al. 2020, equation 1) over rows z [n, d]: s_ij = z_i . z_j / temperature, row i's positive pos(i) being
// row (i + n / 2) mod n.
//
//   partial_sums   state_i = (max, sum of exp(s_ij - max) over j != i, s_i,pos(i)), over a range of columns j
//   row_losses     log_sum_exp_i = max + log sum, losses_i = log_sum_exp_i - s_i,pos(i)
//   gradient       dz_i = dloss / (n temperature) sum_j w_ij z_j,
//                  w_ij = [j != i] (exp(s_ij - log_sum_exp_i) + exp(s_ij - log_sum_exp_j)) - 2 [j = pos(i)]
//
// The n x n matrix is never stored. A workgroup holds ROWS rows and streams over the columns, 4 LANES at a time: an
// invocation has ROWS x 4 similarities in registers (the tile of gemm.wgsl, both factors being z with d first), folds them
// into its running maximum and sum, and goes on; at the end the lanes are merged in order. The gradient puts the weights of
// the columns at hand into workgroup memory and multiplies them with z there, a vec4 of d an invocation.
//
// A large z comes as ranges of rows and of columns, packed by pack.wgsl; `accumulate` adds to what an earlier range of
// columns left.
#variant rows8 ROWS=8 VECTORS=1 LANES=32 UNROLL=1 SUBGROUP=0

#import grid

struct Params {
    // All rows.
    n: u32,
    d: u32,
    // Of the ranges: number of the first, and how many.
    first_row: u32,
    rows: u32,
    first_column: u32,
    columns: u32,
    // vec4s of a row of `left`, `right` and `right_rows`.
    left_stride: u32,
    right_stride: u32,
    row_stride: u32,
    dz_offset: u32,
    accumulate: u32,
    temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// z of the range of rows, and of the range of columns, d first.
@group(0) @binding(1) var<storage, read> left: array<vec4f>;
@group(0) @binding(2) var<storage, read> right: array<vec4f>;
// z of the range of columns, as it is.
@group(0) @binding(3) var<storage, read> right_rows: array<vec4f>;
@group(0) @binding(4) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(5) var<storage, read> dloss: array<f32>;
@group(0) @binding(6) var<storage, read_write> state: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> new_log_sum_exp: array<f32>;
@group(0) @binding(8) var<storage, read_write> losses: array<f32>;
@group(0) @binding(9) var<storage, read_write> dz: array<f32>;

// Below every similarity, and finite, so that differences with it are too.
const LOWEST = -3.0e38;

var<workgroup> lanes: array<vec2f, ${ROWS * LANES}>;
var<workgroup> positives: array<f32, ${ROWS}>;
var<workgroup> weights: array<vec4f, ${ROWS * LANES}>;

// Of ROWS rows from `first` on with four columns: element i of vec4 r belongs to row r and column i.
fn similarities(first: u32, column_vector: u32) -> array<vec4f, ${ROWS}> {
    var left_at = first / 4u;
    var right_at = column_vector;
#for r in 0..ROWS
    var sum${r}_0 = vec4f(0.0);
#end
    for (var k = 0u; k < params.d; k++) {
        let right0_0 = right[right_at];
#for q in 0..ROWS/4
        let left0_${q} = left[left_at + ${q}u];
#end
#import outer_product
        left_at += params.left_stride;
        right_at += params.right_stride;
    }
    return array<vec4f, ${ROWS}>(
#for r in 0..ROWS
        sum${r}_0 / params.temperature,
#end
    );
}

// The row of a similarity's positive.
fn positive_of(row: u32) -> u32 {
    return (row + params.n / 2u) % params.n;
}

// A running maximum and sum with four more similarities, those of `counted`.
fn fold(running: vec2f, s: vec4f, counted: vec4<bool>) -> vec2f {
    let masked = select(vec4f(LOWEST), s, counted);
    let top = max(max(running.x, max(masked.x, masked.y)), max(masked.z, masked.w));
    let e = select(vec4f(0.0), exp(s - top), counted);
    return vec2f(top, running.y * exp(running.x - top) + ((e.x + e.y) + (e.z + e.w)));
}

@compute @workgroup_size(${LANES})
fn partial_sums(at: Invocation) {
    // Workgroups behind the last tile of rows repeat it and store nothing.
    let tile = min(workgroup_index(at), (params.rows - 1u) / ${ROWS}u);
    let first = tile * ${ROWS}u;
    let column_vectors = (params.columns + 3u) / 4u;
    if at.lane < ${ROWS}u {
        positives[at.lane] = 0.0;
    }
    workgroupBarrier();
#for r in 0..ROWS
    var running${r} = vec2f(LOWEST, 0.0);
    let row${r} = params.first_row + first + ${r}u;
    let positive${r} = positive_of(row${r});
#end
    for (var begin = 0u; begin < column_vectors; begin += ${LANES}u) {
        let vector = begin + at.lane;
        let s = similarities(first, min(vector, column_vectors - 1u));
        let local = vec4u(vector * 4u) + vec4u(0u, 1u, 2u, 3u);
        let column = local + params.first_column;
        let there = local < vec4u(params.columns);
#for r in 0..ROWS
        running${r} = fold(running${r}, s[${r}], there & (column != vec4u(row${r})));
        let is_positive${r} = there & (column == vec4u(positive${r}));
#for i in 0..4
        if is_positive${r}[${i}] {
            positives[${r}] = s[${r}][${i}];
        }
#end
#end
    }
#for r in 0..ROWS
    lanes[${r * LANES}u + at.lane] = running${r};
#end
    workgroupBarrier();
    let row = first + at.lane;
    if at.lane < ${ROWS}u && row < params.rows && tile == workgroup_index(at) {
        var merged = vec2f(LOWEST, 0.0);
        var positive = positives[at.lane];
        if params.accumulate != 0u {
            let before = state[row];
            merged = before.xy;
            positive += before.z;
        }
        for (var lane = 0u; lane < ${LANES}u; lane++) {
            let other = lanes[at.lane * ${LANES}u + lane];
            let top = max(merged.x, other.x);
            merged = vec2f(top, merged.y * exp(merged.x - top) + other.y * exp(other.x - top));
        }
        state[row] = vec4f(merged, positive, 0.0);
    }
}

@compute @workgroup_size(256)
fn row_losses(at: Invocation) {
    let i = index256(at);
    if i < params.rows {
        let of_row = state[i];
        let lse = of_row.x + log(of_row.y);
        new_log_sum_exp[params.first_row + i] = lse;
        losses[params.first_row + i] = lse - of_row.z;
    }
}

@compute @workgroup_size(${LANES})
fn gradient(at: Invocation) {
    let tile = min(workgroup_index(at), (params.rows - 1u) / ${ROWS}u);
    let first = tile * ${ROWS}u;
    let column_vectors = (params.columns + 3u) / 4u;
    let d_vectors = (params.d + 3u) / 4u;
    let factor = dloss[0] / (f32(params.n) * params.temperature);
#for r in 0..ROWS
    let row${r} = params.first_row + first + ${r}u;
    let lse${r} = vec4f(log_sum_exp[min(row${r}, params.n - 1u)]);
    let positive${r} = positive_of(row${r});
#end
    for (var begin = 0u; begin < column_vectors; begin += ${LANES}u) {
        let vector = begin + at.lane;
        let s = similarities(first, min(vector, column_vectors - 1u));
        let local = vec4u(vector * 4u) + vec4u(0u, 1u, 2u, 3u);
        let column = local + params.first_column;
        let there = local < vec4u(params.columns);
        let known = min(column, vec4u(params.n - 1u));
        let lse = vec4f(log_sum_exp[known.x], log_sum_exp[known.y], log_sum_exp[known.z], log_sum_exp[known.w]);
#for r in 0..ROWS
        let p${r} = exp(s[${r}] - lse${r}) + exp(s[${r}] - lse);
        let w${r} = select(vec4f(0.0), p${r}, column != vec4u(row${r}))
            - select(vec4f(0.0), vec4f(2.0), column == vec4u(positive${r}));
        weights[${r * LANES}u + at.lane] = select(vec4f(0.0), factor * w${r}, there);
#end
        workgroupBarrier();
        let end = min(${LANES}u, column_vectors - begin);
        for (var v = at.lane; v < d_vectors; v += ${LANES}u) {
#for r in 0..ROWS
            var total${r} = vec4f(0.0);
#end
            for (var c = 0u; c < end; c++) {
                let j = (begin + c) * 4u;
#for i in 0..4
                let z${i} = right_rows[min(j + ${i}u, params.columns - 1u) * params.row_stride + v];
#end
#for r in 0..ROWS
                let weight${r} = weights[${r * LANES}u + c];
                total${r} += (weight${r}.x * z0 + weight${r}.y * z1) + (weight${r}.z * z2 + weight${r}.w * z3);
#end
            }
            let begun = params.accumulate != 0u || begin > 0u;
#for r in 0..ROWS
            if first + ${r}u < params.rows && tile == workgroup_index(at) {
                let dz_at = params.dz_offset + (first + ${r}u) * params.d + v * 4u;
#for i in 0..4
                if v * 4u + ${i}u < params.d {
                    dz[dz_at + ${i}u] = select(0.0, dz[dz_at + ${i}u], begun) + total${r}[${i}];
                }
#end
            }
#end
        }
        workgroupBarrier();
    }
}
