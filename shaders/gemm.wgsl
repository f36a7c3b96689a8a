// C = A B (+ bias), all four transpositions.
//
//   a     [K, 4 a_stride]  A with its sum index first: packed by pack.wgsl, or as it is where it is stored transposed
//   b     [K, 4 b_stride]  B likewise, or as it is where it is not transposed
//   bias  [N]              added to every row (variant bias)
//   c     [M, N]           some rows of C; columns `column .. column + n` are written
//
// Tile: an invocation holds ROWS rows x 4 VECTORS columns of C in registers, a workgroup ROWS rows x 4 VECTORS WORKGROUP
// columns. No workgroup memory and no barrier: a multiply-add costs little more than a sixteenth of a load.
//   - Each element of B is loaded by one invocation of the workgroup, neighbours loading neighbouring vec4s.
//   - The ROWS elements of A are the same for the whole workgroup. The plain variants load them by a uniform address (one
//     scalar load or one broadcast on a GPU). The subgroup8 variants, only for adapters whose subgroups are all of 8, load
//     one element an invocation and hand it round with subgroupBroadcast.
// Invocations beyond the last column repeat it and store nothing, so that control flow stays uniform.
//
// One workgroup a tile, row tiles fastest: the workgroups that run together share columns of B. Where K is sliced,
// `accumulate` adds to C. The order of the sum is k = 0, 1, ... for each element.
//
// Floors: 2 M N K FLOPs over the peak; 4 (M K + K N + M N) bytes over the bandwidth, three times the first two where they
// are packed.
#variant plain ROWS=8 VECTORS=2 WORKGROUP=64 SUBGROUP=0 BIAS=0
#variant plain_bias ROWS=8 VECTORS=2 WORKGROUP=64 SUBGROUP=0 BIAS=1
#variant subgroup8 ROWS=16 VECTORS=1 WORKGROUP=8 SUBGROUP=1 BIAS=0
#variant subgroup8_bias ROWS=16 VECTORS=1 WORKGROUP=8 SUBGROUP=1 BIAS=1

#import grid

struct Params {
    m: u32,
    n: u32,
    k: u32,
    // vec4s before the first one, and of a row
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    // elements before row 0 of c, and of a row
    c_offset: u32,
    c_stride: u32,
    // first column written
    column: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
#if SUBGROUP
@group(0) @binding(1) var<storage, read> a: array<f32>;
#else
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
#end
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

#if SUBGROUP
fn load_left(i: u32) -> f32 {
#else
fn load_left(i: u32) -> vec4f {
#end
    return a[i];
}

@compute @workgroup_size(${WORKGROUP})
fn gemm(
    at: Invocation,
#if SUBGROUP
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#end
) {
    let row_tiles = (params.m + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    // Folding may launch workgroups behind the last tile: they repeat its columns and store nothing.
    let vector = tile / row_tiles * ${WORKGROUP * VECTORS}u + at.lane;
    let last_vector = (params.n - 1u) / 4u;
#if SUBGROUP
    var left_at = params.a_offset * 4u + first_row + subgroup_lane;
    let a_step = params.a_stride * 4u;
#else
    var left_at = params.a_offset + first_row / 4u;
    let a_step = params.a_stride;
#end
#for v in 0..VECTORS
    var b_at${v} = params.b_offset + min(vector + ${v * WORKGROUP}u, last_vector);
#end
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    for (var k = 0u; k < params.k; k++) {
#for v in 0..VECTORS
        let right${v} = b[b_at${v}];
#end
#import outer_product
        left_at += a_step;
#for v in 0..VECTORS
        b_at${v} += params.b_stride;
#end
    }
#for v in 0..VECTORS
    let n${v} = (vector + ${v * WORKGROUP}u) * 4u;
#if BIAS
    if params.accumulate == 0u {
#for i in 0..4
        let bias${i} = bias[params.column + min(n${v} + ${i}u, params.n - 1u)];
#end
        let shift = vec4f(bias0, bias1, bias2, bias3);
#for r in 0..ROWS
        sum${r}_${v} += shift;
#end
    }
#end
#for r in 0..ROWS
    if first_row + ${r}u < params.m {
        let c_at = params.c_offset + (first_row + ${r}u) * params.c_stride + params.column + n${v};
#for i in 0..4
        if n${v} + ${i}u < params.n {
            c[c_at + ${i}u] = select(0.0, c[c_at + ${i}u], params.accumulate != 0u) + sum${r}_${v}[${i}];
        }
#end
    }
#end
#end
}
