// C = A B (+ bias) where whole vectors of A and B lie together, for Vulkan on a processor with subgroups of 8: the fast
// case of gemm.wgsl's subgroup8_large, and of 1x1 and 3x3 convolutions and their gradients.
//
//   a     [M, K]   rows of terms (left_along), or [K, M]: 4 elements a vector
//   b     [N, K]   (right_along), 4 elements a vector; or [K, N], 8 elements a vector
//   bias  [N]      added to every row (variant bias)
//   c     [M, N]   some rows of C; columns `column .. column + n` are written
//
// K is a multiple of 4 and N of 8, offsets and steps of whole vectors, which the launch counts in them. Where any of
// this fails, gemm.wgsl takes the product.
//
// An index that runs through the pixels of images is cut into their planes, whole vectors each: the columns where b is
// not right_along (b and c are images; a is a weight), or the terms (nt: a and b are images). A product has a single
// image.
//   forward     nn: y[n, q, pixel]  = sum over c of w[q, c] x[n, c, pixel]
//   dx          tn: dx[n, c, pixel] = sum over q of w[q, c] dy[n, q, pixel]
//   dw          nt: dw[q, c]        = sum over n, pixel of dy[n, q, pixel] x[n, c, pixel]
// A 3x3 convolution of stride 1 is the same with nine taps, where b is images as unfold.wgsl lays them out, so that a
// tap's pixels are as many vectors further on: nn and tn add up tap after tap, and a has a matrix for each; in nt a
// column is a channel and a tap. nt also cuts its terms into `splits` runs, each with a C of its own behind the one
// before, which another kernel adds up.
//
// An invocation holds ROWS rows x 8 columns of C that lie together, a workgroup of 8 ROWS x 64. Every load is made lane
// by lane there, at the price of a dozen instructions, most of them tests of the lane and of the buffer's end
// (docs/performance.md, WGSL on llvmpipe). Loaded as i64, two elements share the second test and the vector's elements
// the first: a third of the instructions. They are taken apart at once.
//
// An invocation loads one row in eight of A, and subgroupBroadcast hands it round. Loads, sums and stores are otherwise
// as in gemm.wgsl: the order of the sum is k = 0, 1, ... for each element.
//
// One workgroup a tile, row tiles fastest, splits slowest: the workgroups that run together share columns of B.
//
// Floors: 2 M N K FLOPs over the peak; 4 (M K + K N + M N) bytes over the bandwidth.
#variant nn ROWS=64 VECTORS=2 UNROLL=4 SUBGROUP=8 LEFT_ALONG=1 RIGHT_ALONG=0 BIAS=0 SPLITS=0
#variant nt ROWS=64 VECTORS=2 UNROLL=4 SUBGROUP=8 LEFT_ALONG=1 RIGHT_ALONG=1 BIAS=0 SPLITS=1
#variant nt_bias ROWS=64 VECTORS=2 UNROLL=4 SUBGROUP=8 LEFT_ALONG=1 RIGHT_ALONG=1 BIAS=1 SPLITS=0
#variant tn ROWS=64 VECTORS=2 UNROLL=4 SUBGROUP=8 LEFT_ALONG=0 RIGHT_ALONG=0 BIAS=0 SPLITS=0
#variant tt ROWS=64 VECTORS=2 UNROLL=4 SUBGROUP=8 LEFT_ALONG=0 RIGHT_ALONG=1 BIAS=0 SPLITS=0

#import grid
#import pairs

struct Params {
    m: u32,
    // columns, in eights
    eights: u32,
    // terms in fours
    fours: u32,
    // in vectors of a: from a row to the next (left_along), or from a term to the next
    a_offset: u32,
    a_step: u32,
    // in vectors of b: from a column to the next (right_along), or from a term to the next
    b_offset: u32,
    b_step: u32,
    // in eights
    c_offset: u32,
    c_stride: u32,
    // first column written
    column: u32,
    accumulate: u32,
    // vectors of b in a plane of an image, and from an image to the next; the same step in vectors of a (nt) or eights
    // of c
    plane: u32,
    b_image: u32,
    other_image: u32,
    // nt: runs of the sum, and fours in one
    splits: u32,
    split_fours: u32,
    // taps of a row, and in all; fours of a tap's terms
    taps_w: u32,
    taps: u32,
    tap_fours: u32,
    // nn, tn: what is skipped between two taps, in vectors of a and, in a row of taps and between two, of b; nt: from a
    // tap of b to the next, and to that in the next row
    a_tap: u32,
    b_tap: u32,
    b_tap_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec2<i64>>;
#if RIGHT_ALONG
@group(0) @binding(2) var<storage, read> b: array<vec2<i64>>;
#else
@group(0) @binding(2) var<storage, read> b: array<vec4<i64>>;
#end
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<vec4<i64>>;

@compute @workgroup_size(8)
fn gemm(at: Invocation, @builtin(subgroup_invocation_id) subgroup_lane: u32) {
    let row_tiles = (params.m + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    // Invocations behind the last column repeat it and store nothing.
#if SPLITS
    let column_tiles = (params.eights + 7u) / 8u;
    let own = tile / row_tiles % column_tiles * 8u + at.lane;
    // Folding may launch workgroups behind the last split: they have no terms and store nothing.
    let split = tile / row_tiles / column_tiles;
    let first_four = min(split * params.split_fours, params.fours);
    let end_four = min(first_four + params.split_fours, params.fours);
#else
    let own = tile / row_tiles * 8u + at.lane;
    let first_four = 0u;
    let end_four = params.fours;
#end
    let eight = min(own, params.eights - 1u);
#if RIGHT_ALONG
#else
    let image = eight / params.plane;
#end
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
#if LEFT_ALONG
    // Sum r is of row r of the tile.
#for q in 0..ROWS/8
    let a_at${q} = params.a_offset + min(first_row + ${8 * q}u + subgroup_lane, params.m - 1u) * params.a_step;
#end
#else
    // Four rows a lane: sum r is of row 32 (r / 32) + 4 (r % 8) + r / 8 % 4 of the tile.
#for q in 0..ROWS/32
    let a_first${q} = params.a_offset + min(first_row / 4u + ${8 * q}u + subgroup_lane, params.m / 4u - 1u);
#end
#end
#if RIGHT_ALONG
#for j in 0..8
#if SPLITS
    let channel${j} = (eight * 8u + ${j}u) / params.taps;
    let tap${j} = eight * 8u + ${j}u - channel${j} * params.taps;
    let tap_row${j} = tap${j} / params.taps_w;
    let b_at${j} = params.b_offset + channel${j} * params.b_step + tap_row${j} * params.b_tap_row
        + (tap${j} - tap_row${j} * params.taps_w) * params.b_tap;
#else
    let b_at${j} = params.b_offset + (eight * 8u + ${j}u) * params.b_step;
#end
#end
#else
    var b_at = params.b_offset + eight + image * (params.b_image - params.plane);
#end
#if SPLITS
    let first_image = first_four / params.plane;
    var in_plane = first_four - first_image * params.plane;
    var a_on = first_image * params.other_image + in_plane;
    var b_on = first_image * params.b_image + in_plane;
#else
    var a_on = 0u;
    var in_tap = 0u;
    var tap_column = 0u;
#end
    for (var four = first_four; four < end_four; four++) {
#if RIGHT_ALONG
#for j in 0..8
#if SPLITS
        let column${j} = b[b_at${j} + b_on];
#else
        let column${j} = b[b_at${j} + four];
#end
        let right0_of${j} = lower(column${j}.x);
        let right1_of${j} = upper(column${j}.x);
        let right2_of${j} = lower(column${j}.y);
        let right3_of${j} = upper(column${j}.y);
#end
#for u in 0..UNROLL
#for v in 0..VECTORS
        let right${u}_${v} = vec4f(
            right${u}_of${4 * v}, right${u}_of${4 * v + 1}, right${u}_of${4 * v + 2}, right${u}_of${4 * v + 3},
        );
#end
#end
#else
#for u in 0..UNROLL
        let pairs${u} = b[b_at + ${u}u * params.b_step];
        let right${u}_0 = lower_four(pairs${u});
        let right${u}_1 = upper_four(pairs${u});
#end
#end
#if LEFT_ALONG
#for q in 0..ROWS/8
        let row${q} = a[a_at${q} + a_on];
        let left0_${q} = lower(row${q}.x);
        let left1_${q} = upper(row${q}.x);
        let left2_${q} = lower(row${q}.y);
        let left3_${q} = upper(row${q}.y);
#end
#else
#for u in 0..UNROLL
#for q in 0..ROWS/32
        let rows${u}_${q} = a[a_first${q} + a_on + ${u}u * params.a_step];
        let left${u}_${4 * q} = lower(rows${u}_${q}.x);
        let left${u}_${4 * q + 1} = upper(rows${u}_${q}.x);
        let left${u}_${4 * q + 2} = lower(rows${u}_${q}.y);
        let left${u}_${4 * q + 3} = upper(rows${u}_${q}.y);
#end
#end
#end
#if SPLITS
        in_plane++;
        let ends = in_plane == params.plane;
        in_plane = select(in_plane, 0u, ends);
        a_on += select(1u, params.other_image - params.plane + 1u, ends);
        b_on += select(1u, params.b_image - params.plane + 1u, ends);
#else
        in_tap++;
        let ends = in_tap == params.tap_fours;
        in_tap = select(in_tap, 0u, ends);
#if LEFT_ALONG
        a_on += 1u + select(0u, params.a_tap, ends);
#else
        a_on += ${UNROLL}u * params.a_step + select(0u, params.a_tap, ends);
#end
#if RIGHT_ALONG
#else
        tap_column += select(0u, 1u, ends);
        let row_ends = tap_column == params.taps_w;
        tap_column = select(tap_column, 0u, row_ends);
        b_at += ${UNROLL}u * params.b_step + select(0u, select(params.b_tap, params.b_tap_row, row_ends), ends);
#end
#end
#import outer_product
    }

    // Stored by a loop, from an array: unrolled, their tests make the compiler take half a minute.
    // They become pairs there alone: an array of pairs makes the sums' own loop slower by a fifth.
    var sums: array<f32, ${ROWS * 8}>;
#for r in 0..ROWS
#for v in 0..VECTORS
#for i in 0..4
    sums[${(r * VECTORS + v) * 4 + i}] = sum${r}_${v}[${i}];
#end
#end
#end
#if BIAS
    let bias_at = params.column + eight * 8u;
#for v in 0..VECTORS
    let shift${v} = vec4f(
        bias[bias_at + ${4 * v}u], bias[bias_at + ${4 * v + 1}u],
        bias[bias_at + ${4 * v + 2}u], bias[bias_at + ${4 * v + 3}u],
    );
#end
#end
    let c_first = params.c_offset + params.column / 8u + eight;
#if SPLITS
    let c_at = c_first + split * params.m * params.c_stride;
#else
#if RIGHT_ALONG
    let c_at = c_first;
#else
    let c_at = c_first + image * (params.other_image - params.plane);
#end
#end
    for (var r = 0u; r < ${ROWS}u; r++) {
#if LEFT_ALONG
        let row = first_row + r;
#else
        let row = first_row + r / 32u * 32u + r % 8u * 4u + r / 8u % 4u;
#end
#if SPLITS
        if own < params.eights && row < params.m && split < params.splits {
#else
        if own < params.eights && row < params.m {
#end
            let to = c_at + row * params.c_stride;
#for v in 0..VECTORS
            var total${v} = vec4f(
                sums[r * 8u + ${4 * v}u], sums[r * 8u + ${4 * v + 1}u],
                sums[r * 8u + ${4 * v + 2}u], sums[r * 8u + ${4 * v + 3}u],
            );
#if BIAS
            total${v} += shift${v};
#end
#end
            if params.accumulate != 0u {
                let before = c[to];
                total0 += lower_four(before);
                total1 += upper_four(before);
            }
            c[to] = eight_of(total0, total1);
        }
    }
}
