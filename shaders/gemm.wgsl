// C = A B (+ bias), all four transpositions.
//
//   a     [K, M]   a[a_offset + k a_term + m a_row]
//   b     [K, N]   b[b_offset + k b_term + n b_column]
//   bias  [N]      added to every row (variant bias)
//   c     [M, N]   some rows of C; columns `column .. column + n` are written
//
// An invocation holds ROWS rows x 4 VECTORS columns of C in registers, a workgroup ROWS rows x 4 VECTORS WORKGROUP
// columns. No workgroup memory and no barrier. Each element of B is loaded by one invocation of the workgroup; the ROWS
// elements of A are the same for all of it. Invocations beyond the last column repeat it and store nothing, so that
// control flow stays uniform.
//
// Two families, one for graphics processors and one for Vulkan on a processor (docs/performance.md, WGSL on llvmpipe);
// a third, staged in workgroup memory, is gemm_staged.wgsl:
//   - plain: a and b are vec4s along m and n, contiguous and padded to whole tiles: packed by pack.wgsl, or as they are
//     where they are stored so (offsets and terms count vec4s; a_row and b_column are 1). Neighbours load neighbouring
//     vec4s of B; A is loaded by a uniform address, one scalar load or one broadcast.
//   - subgroup8, only for adapters whose subgroups are all of 8: a and b are single elements with any strides, since
//     every load there is made lane by lane, so that nothing is packed. An invocation loads one element in eight of A,
//     and subgroupBroadcast hands it round. UNROLL terms are loaded, then added up; the sums are stored by loops. large
//     has the fewest loads for each multiply-add, small loses less at the edges of C.
//     gemm_pairs.wgsl takes its place where whole vectors lie together.
//   - subgroup32: the same for adapters whose subgroups are all of 32, as many graphics processors' are. Not run yet:
//     no such adapter was at hand.
//
// One workgroup a tile, row tiles fastest: the workgroups that run together share columns of B. Where K is sliced,
// `accumulate` adds to C. The order of the sum is k = 0, 1, ... for each element.
//
// Floors: 2 M N K FLOPs over the peak; 4 (M K + K N + M N) bytes over the bandwidth, three times the first two where
// they are packed.
#variant plain ROWS=8 VECTORS=2 WORKGROUP=64 UNROLL=1 SUBGROUP=0 STRIDED=0 BIAS=0
#variant plain_bias ROWS=8 VECTORS=2 WORKGROUP=64 UNROLL=1 SUBGROUP=0 STRIDED=0 BIAS=1
#variant subgroup8_large ROWS=64 VECTORS=2 WORKGROUP=8 UNROLL=2 SUBGROUP=8 STRIDED=1 BIAS=0
#variant subgroup8_large_bias ROWS=64 VECTORS=2 WORKGROUP=8 UNROLL=2 SUBGROUP=8 STRIDED=1 BIAS=1
#variant subgroup8_small ROWS=16 VECTORS=1 WORKGROUP=8 UNROLL=4 SUBGROUP=8 STRIDED=1 BIAS=0
#variant subgroup8_small_bias ROWS=16 VECTORS=1 WORKGROUP=8 UNROLL=4 SUBGROUP=8 STRIDED=1 BIAS=1
#variant subgroup32 ROWS=32 VECTORS=1 WORKGROUP=32 UNROLL=2 SUBGROUP=32 STRIDED=1 BIAS=0
#variant subgroup32_bias ROWS=32 VECTORS=1 WORKGROUP=32 UNROLL=2 SUBGROUP=32 STRIDED=1 BIAS=1

#import grid
#import gemm_params

@group(0) @binding(0) var<uniform> params: Params;
#if SUBGROUP
@group(0) @binding(1) var<storage, read> a: array<f32>;
#else
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
#end
#if STRIDED
@group(0) @binding(2) var<storage, read> b: array<f32>;
#else
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#end
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

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
#for v in 0..VECTORS
    let n${v} = (vector + ${v * WORKGROUP}u) * 4u;
#end
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
#if SUBGROUP
#for q in 0..ROWS/SUBGROUP
    var a_at${q} = params.a_offset + min(first_row + ${SUBGROUP * q}u + subgroup_lane, params.m - 1u) * params.a_row;
#end
#else
    var a_at = params.a_offset + first_row / 4u;
#end
#for v in 0..VECTORS
#if STRIDED
    var b_at${v} = params.b_offset + min(vec4u(n${v}) + vec4u(0u, 1u, 2u, 3u), vec4u(params.n - 1u)) * params.b_column;
#else
    var b_at${v} = params.b_offset + min(vector + ${v * WORKGROUP}u, (params.n - 1u) / 4u);
#end
#end
    for (var k = 0u; k < params.k; k += ${UNROLL}u) {
#if SUBGROUP
#for u in 0..UNROLL
        // Behind the last term the first is loaded again and taken as zero, on both sides, since 0 times infinity is
        // not 0.
        let there${u} = k + ${u}u < params.k;
        let a_on${u} = select(0u, ${u}u * params.a_term, there${u});
        let b_on${u} = select(0u, ${u}u * params.b_term, there${u});
#for v in 0..VECTORS
#if STRIDED
        let loaded${u}_${v} = vec4f(
            b[b_at${v}.x + b_on${u}],
            b[b_at${v}.y + b_on${u}],
            b[b_at${v}.z + b_on${u}],
            b[b_at${v}.w + b_on${u}],
        );
#else
        let loaded${u}_${v} = b[b_at${v} + b_on${u}];
#end
        let right${u}_${v} = select(vec4f(0.0), loaded${u}_${v}, there${u});
#end
#for q in 0..ROWS/SUBGROUP
        let left${u}_${q} = select(0.0, a[a_at${q} + a_on${u}], there${u});
#end
#end
#for q in 0..ROWS/SUBGROUP
        a_at${q} += ${UNROLL}u * params.a_term;
#end
#else
#for v in 0..VECTORS
        let right0_${v} = b[b_at${v}];
#end
#for q in 0..ROWS/4
        let left0_${q} = a[a_at + ${q}u];
#end
        a_at += params.a_term;
#end
#for v in 0..VECTORS
        b_at${v} += ${UNROLL}u * params.b_term;
#end
#import outer_product
    }
#if SUBGROUP

    var sums: array<f32, ${ROWS * VECTORS * 4}>;
#for r in 0..ROWS
#for v in 0..VECTORS
#for i in 0..4
    sums[${(r * VECTORS + v) * 4 + i}] = sum${r}_${v}[${i}];
#end
#end
#end
    let rows = min(params.m - first_row, ${ROWS}u);
#for v in 0..VECTORS
#for i in 0..4
    let there${v}_${i} = n${v} + ${i}u < params.n;
#if BIAS
    let shift${v}_${i} = bias[params.column + min(n${v} + ${i}u, params.n - 1u)];
#end
#end
#end
    var c_at = params.c_offset + first_row * params.c_stride + params.column;
    if params.accumulate == 0u {
        for (var r = 0u; r < rows; r++) {
#for v in 0..VECTORS
#for i in 0..4
            if there${v}_${i} {
#if BIAS
                c[c_at + n${v} + ${i}u] = sums[r * ${4 * VECTORS}u + ${4 * v + i}u] + shift${v}_${i};
#else
                c[c_at + n${v} + ${i}u] = sums[r * ${4 * VECTORS}u + ${4 * v + i}u];
#end
            }
#end
#end
            c_at += params.c_stride;
        }
    } else {
        for (var r = 0u; r < rows; r++) {
#for v in 0..VECTORS
#for i in 0..4
            if there${v}_${i} {
                c[c_at + n${v} + ${i}u] += sums[r * ${4 * VECTORS}u + ${4 * v + i}u];
            }
#end
#end
            c_at += params.c_stride;
        }
    }
#else
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
#end
}
