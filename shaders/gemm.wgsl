// C = A B (+ bias), for all four transpositions.
//
//   a     [K, M]   vec4s along m: a[a_offset + k a_term + m / 4]
//   b     [K, N]   vec4s along n: b[b_offset + k b_term + n / 4]
//   bias  [N]      added to every row (variant bias)
//   c     [M, N]   some rows of C; columns `column .. column + n` are written
//
// a and b are packed by gemm_pack.wgsl, or read in place if they are stored in this order. Rows of
// A are padded to whole tiles, columns of B to whole vec4s. Offsets and terms count vec4s.
// gemm_tiled.wgsl computes the same with tiles in workgroup memory.
//
// An invocation holds ROWS rows x 4 VECTORS columns of C in registers, and a workgroup ROWS rows x
// 4 VECTORS WORKGROUP columns. There are no barriers. Neighbours load neighbouring vec4s of B, each
// of them once per workgroup. The address of the ROWS elements of A is uniform in the workgroup.
// Invocations beyond the last column repeat it and store nothing, so control flow is uniform.
//
// One workgroup per tile, row tiles fastest, so workgroups that run together share columns of B. If
// K is sliced, `accumulate` adds to C. The order of the sum is k = 0, 1, ... for each element.
//
// Lower bounds of the time: 2 M N K FLOPs at the peak rate; 4 (M K + K N + M N) bytes at the memory
// bandwidth. Packing triples the first two terms.
#variant plain ROWS=8 VECTORS=2 WORKGROUP=64 BIAS=0
#variant bias ROWS=8 VECTORS=2 WORKGROUP=64 BIAS=1

#import grid
#import gemm_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn gemm(at: Invocation) {
    let row_tiles = (params.m + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    // Surplus workgroups beyond the last tile repeat its columns and store nothing.
    let vector = tile / row_tiles * ${WORKGROUP * VECTORS}u + at.lane;
#for v in 0..VECTORS
    let n${v} = (vector + ${v * WORKGROUP}u) * 4u;
#end
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    var a_at = params.a_offset + first_row / 4u;
#for v in 0..VECTORS
    var b_at${v} = params.b_offset + min(vector + ${v * WORKGROUP}u, (params.n - 1u) / 4u);
#end
    for (var k = 0u; k < params.k; k++) {
#for v in 0..VECTORS
        let right${v} = b[b_at${v}];
#end
#for q in 0..ROWS/4
        let left${q} = a[a_at + ${q}u];
#end
        a_at += params.a_term;
#for v in 0..VECTORS
        b_at${v} += params.b_term;
#end
#import outer_product
    }
#for v in 0..VECTORS
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
