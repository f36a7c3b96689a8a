// C = A B (+ bias), all four transpositions.
//
//   a     [K, 4 a_stride]  A with its sum index first: packed by pack.wgsl, or as it is where it is stored transposed
//   b     [K, 4 b_stride]  B likewise, or as it is where it is not transposed
//   bias  [N]              added to every row (variant bias)
//   c     [M, N]           some rows of C; columns `column .. column + n` are written
//
// Tile: an invocation holds ${ROWS} rows x 4 columns of C in registers, a workgroup of 64 covers ${ROWS} rows x 256 columns. All
// invocations of a workgroup read the same ${ROWS} elements of A (the address is uniform: one scalar load or one broadcast),
// and neighbours read neighbouring vec4s of B: ${ROWS / 4 + 1} loads for ${4 * ROWS} multiply-adds, no workgroup memory and no barrier.
// Invocations beyond the last column repeat it and store nothing, so that control flow stays uniform.
//
// One workgroup a tile, row tiles fastest: the workgroups that run together share columns of B. Where K is sliced,
// `accumulate` adds to C. The order of the sum is k = 0, 1, ... for each element.
//
// Floors: 2 M N K FLOPs over the peak; 4 (M K + K N + M N) bytes over the bandwidth, three times the first two where they
// are packed.
#variant plain ROWS=16 BIAS=0
#variant bias ROWS=16 BIAS=1

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
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(64)
fn gemm(at: Invocation) {
    let row_tiles = (params.m + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    // Folding may launch workgroups behind the last tile: they repeat its columns and store nothing.
    let vector = tile / row_tiles * 64u + at.lane;
    let last_vector = (params.n - 1u) / 4u;
    var a_at = params.a_offset + first_row / 4u;
    var b_at = params.b_offset + min(vector, last_vector);
#for r in 0..ROWS
    var sum${r} = vec4f(0.0);
#end
    for (var k = 0u; k < params.k; k++) {
        let right = b[b_at];
#for q in 0..ROWS/4
        let left${q} = a[a_at + ${q}u];
#for r in 0..4
        sum${4 * q + r} = fma(vec4f(left${q}[${r}]), right, sum${4 * q + r});
#end
#end
        a_at += params.a_stride;
        b_at += params.b_stride;
    }
    let n = vector * 4u;
#if BIAS
    if params.accumulate == 0u {
#for i in 0..4
        let bias${i} = bias[params.column + min(n + ${i}u, params.n - 1u)];
#end
        let shift = vec4f(bias0, bias1, bias2, bias3);
#for r in 0..ROWS
        sum${r} += shift;
#end
    }
#end
#for r in 0..ROWS
    if first_row + ${r}u < params.m {
        let c_at = params.c_offset + (first_row + ${r}u) * params.c_stride + params.column + n;
#for i in 0..4
        if n + ${i}u < params.n {
            c[c_at + ${i}u] = select(0.0, c[c_at + ${i}u], params.accumulate != 0u) + sum${r}[${i}];
        }
#end
    }
#end
}
