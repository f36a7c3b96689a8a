// NT-Xent (Chen et al. 2020, equation 1) of rows z [n, d]: s_ij = z_i . z_j / temperature. The
// positive of row i is pos(i) = (i + n / 2) mod n.
//
//   row_losses  log_sum_exp_i = log sum_{j != i} exp(s_ij), losses_i = log_sum_exp_i - s_i,pos(i)
//   weigh       replaces the products z_i . z_j by dloss / (n temperature) w_ij, where w_ij =
//               [j != i] (exp(s_ij - log_sum_exp_i) + exp(s_ij - log_sum_exp_j)) - 2 [j = pos(i)]
//
// gemm.wgsl computes the products for some rows i, and then dz_i = sum_j w_ij z_j from the weights
// of these rows, so the n x n matrix is never stored as a whole. One workgroup per row of products.
// A lane holds a maximum and a sum for each of the WIDTH columns of a vector. It loads UNROLL
// vectors before it computes. The order of a lane's sum and of the final sum over lanes is fixed. n
// is even, so rows consist of whole vec2s, or of vec4s if n is a multiple of 4.
//
// Lower bounds of the time per row, besides the products: 4 n (weigh: 8 n) bytes at the memory
// bandwidth.
#variant vec2 WIDTH=2 UNROLL=4
#variant vec4 WIDTH=4 UNROLL=4

#import grid
#import reduce64

struct Params {
    // The number of all rows.
    n: u32,
    // The first row whose products are bound, and the number of such rows.
    first_row: u32,
    rows: u32,
    temperature: f32,
}

#if WIDTH == 4
alias Columns = vec4f;
alias Numbers = vec4u;
const NUMBERS = Numbers(0u, 1u, 2u, 3u);
#else
alias Columns = vec2f;
alias Numbers = vec2u;
const NUMBERS = Numbers(0u, 1u);
#end

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> products: array<Columns>;
@group(0) @binding(2) var<storage, read_write> weights: array<Columns>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<Columns>;
@group(0) @binding(4) var<storage, read> dloss: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_log_sum_exp: array<f32>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;

// Less than every similarity, but its product with log2 e is still a finite f32 number.
const LOWEST = -1.0e38;

// The row that is the positive of `row`.
fn positive_of(row: u32) -> u32 {
    return (row + params.n / 2u) % params.n;
}

@compute @workgroup_size(64)
fn row_losses(at: Invocation) {
    // Workgroups beyond the last row repeat it and store nothing.
    let local = min(workgroup_index(at), params.rows - 1u);
    let row = params.first_row + local;
    let row_vectors = params.n / ${WIDTH}u;
    let start = local * row_vectors;
    var top = Columns(LOWEST);
    var sum = Columns(0.0);
    for (var v = at.lane; v < row_vectors; v += ${64 * UNROLL}u) {
#for u in 0..UNROLL
        let at${u} = v + ${64 * u}u;
        let loaded${u} = products[start + min(at${u}, row_vectors - 1u)];
#end
#for u in 0..UNROLL
        let column${u} = at${u} * ${WIDTH}u + NUMBERS;
        let counts${u} = (column${u} != Numbers(row)) & (Numbers(at${u}) < Numbers(row_vectors));
        let s${u} = select(Columns(LOWEST), loaded${u} / params.temperature, counts${u});
#end
        var now = top;
#for u in 0..UNROLL
        now = max(now, s${u});
#end
        sum *= exp(top - now);
#for u in 0..UNROLL
        sum += exp(s${u} - now);
#end
        top = now;
    }
    // exp(LOWEST - s) is 0 for every similarity s, so terms of LOWEST do not change the sum.
    var own_top = top[0];
#for i in 1..WIDTH
    own_top = max(own_top, top[${i}]);
#end
    let row_top = workgroup_max(at.lane, own_top);
    var own = 0.0;
#for i in 0..WIDTH
    own += sum[${i}] * exp(top[${i}] - row_top);
#end
    let row_sum = workgroup_sum(at.lane, own);
    if at.lane == 0u && workgroup_index(at) < params.rows {
        let positive = positive_of(row);
        let s = products[start + positive / ${WIDTH}u][positive % ${WIDTH}u] / params.temperature;
        let lse = row_top + log(row_sum);
        new_log_sum_exp[row] = lse;
        losses[row] = lse - s;
    }
}

@compute @workgroup_size(64)
fn weigh(at: Invocation) {
    let local = workgroup_index(at);
    if local >= params.rows {
        return;
    }
    let row = params.first_row + local;
    let row_vectors = params.n / ${WIDTH}u;
    let start = local * row_vectors;
    let factor = dloss[0] / (f32(params.n) * params.temperature);
    let of_row = log_sum_exp[row / ${WIDTH}u][row % ${WIDTH}u];
    let positive = positive_of(row);
    for (var v = at.lane; v < row_vectors; v += 64u) {
        let s = weights[start + v] / params.temperature;
        let of_columns = log_sum_exp[v];
        let column = v * ${WIDTH}u + NUMBERS;
        let p = exp(s - of_row) + exp(s - of_columns);
        let w = select(Columns(0.0), p, column != Numbers(row))
            - select(Columns(0.0), Columns(2.0), column == Numbers(positive));
        weights[start + v] = factor * w;
    }
}
