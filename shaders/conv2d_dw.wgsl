// The gradient of a convolution's weight, in two kernels.
//
//   dw[o, c, u, v] = sum over n, i, j of dy[n, o, i, j] x[n, c, stride i + u - padding, stride j + v - padding]
//
// The variants are those of gemm.wgsl, with its reasons:
//   - plain:
//       x         [N H W, 4 channel_vectors]   channels last, padded to vec4s (pack.wgsl)
//       dy        [N OH OW, 4 dy_stride]       channels last, padded to a whole tile (pack.wgsl)
//       partials  [splits, O padded, columns]  vec4s; a column is a tap and four channels
//   - subgroup8 and subgroup32:
//       x         [N, C, H, W]                 where it lies, from x_offset on
//       dy        [N, O, OH, OW]               where it lies, from dy_offset on
//       partials  [splits, O, columns]         a column is a channel and a tap
//   dw  [O, C, KH, KW]
// On a processor 1x1 kernels, and 3x3 ones with a padding of 1, of stride 1 are products of gemm_pairs.wgsl where all
// lies in whole vectors (src/device/gpu/conv2d_pairs.rs).
// Each has a twin for f16 x and dy, whose sums and dw are f32 too.
//
// partial: the rows (n, i) of dy are cut into `splits` runs of `rows_per_split`. An invocation holds ROWS output
//   channels x VECTORS columns (plain) or 4 VECTORS columns (subgroups) in registers, a workgroup WORKGROUP times as
//   many columns, of one split; partials are the sums over the split's rows. For each pixel an invocation loads its
//   elements of x; the ROWS elements of dy are the same for the whole workgroup. Invocations behind the last column
//   repeat it and store nothing. One workgroup a tile, channel tiles fastest, splits slowest.
// reduce: one invocation an element of partials adds the splits in their order, to dw where it follows an earlier slice
//   of the batch. Workgroups of 256. A single split of these is dw itself.
//
// Both orders are fixed, so the same call gives the same bits; there are no atomics.
//
// Floors: 2 N O OH OW C KH KW FLOPs over the peak; 4 (x + dy) bytes over the bandwidth, 12 where they are packed (f16:
// half), and 8 splits dw.

#variant plain ROWS=8 VECTORS=2 WORKGROUP=64 UNROLL=1 SUBGROUP=0
#variant subgroup8_large ROWS=64 VECTORS=2 WORKGROUP=8 UNROLL=2 SUBGROUP=8
#variant subgroup8_small ROWS=16 VECTORS=1 WORKGROUP=8 UNROLL=4 SUBGROUP=8
#variant subgroup32 ROWS=32 VECTORS=1 WORKGROUP=32 UNROLL=2 SUBGROUP=32

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    // N x OH
    rows: u32,
    rows_per_split: u32,
    splits: u32,
    oh: u32,
    ow: u32,
    h: u32,
    w: u32,
    c: u32,
    channel_vectors: u32,
    o: u32,
    // vec4s of a row of dy
    dy_stride: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride: u32,
    padding: u32,
    accumulate: u32,
    x_offset: u32,
    dy_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
#if SUBGROUP
@group(0) @binding(1) var<storage, read> x: array<real>;
@group(0) @binding(2) var<storage, read> dy: array<real>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;
@group(0) @binding(4) var<storage, read> sums: array<f32>;
#else
@group(0) @binding(1) var<storage, read> x: array<real4>;
@group(0) @binding(2) var<storage, read> dy: array<real4>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(4) var<storage, read> sums: array<vec4f>;
#end
@group(0) @binding(5) var<storage, read_write> dw: array<f32>;

fn columns() -> u32 {
#if SUBGROUP
    return params.c * params.kernel_h * params.kernel_w;
#else
    return params.kernel_h * params.kernel_w * params.channel_vectors;
#end
}

@compute @workgroup_size(${WORKGROUP})
fn partial(
    at: Invocation,
#if SUBGROUP
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#end
) {
    let channel_tiles = (params.o + ${ROWS - 1}u) / ${ROWS}u;
    let width = ${VECTORS * WORKGROUP * (1 + 3 * (SUBGROUP > 0))}u;
    let column_tiles = (columns() + width - 1u) / width;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * ${ROWS}u;
    let column = tile / channel_tiles % column_tiles * width + at.lane;
    // Folding may launch workgroups behind the last split: they have no rows and store nothing.
    let split = tile / channel_tiles / column_tiles;
    let first_row = min(split * params.rows_per_split, params.rows);
    let end_row = min(first_row + params.rows_per_split, params.rows);
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
#if SUBGROUP
    let taps = params.kernel_h * params.kernel_w;
    let plane = params.h * params.w;
    let dy_plane = params.oh * params.ow;
#for v in 0..VECTORS
    let column${v} = vec4u(column + ${4 * v * WORKGROUP}u)
        + vec4u(0u, ${WORKGROUP}u, ${2 * WORKGROUP}u, ${3 * WORKGROUP}u);
    let own${v} = min(column${v}, vec4u(columns() - 1u));
    let channel${v} = own${v} / taps;
    let tap${v} = own${v} - channel${v} * taps;
#end
#for q in 0..ROWS/SUBGROUP
    let dy_channel${q} = min(first_channel + ${SUBGROUP * q}u + subgroup_lane, params.o - 1u);
    let dy_base${q} = params.dy_offset + dy_channel${q} * dy_plane;
#end
#else
#for v in 0..VECTORS
    let own${v} = min(column + ${v * WORKGROUP}u, columns() - 1u);
    let tap${v} = own${v} / params.channel_vectors;
    let channel${v} = own${v} - tap${v} * params.channel_vectors;
#end
#end
#for v in 0..VECTORS
    let tap_row${v} = tap${v} / params.kernel_w;
    let tap_column${v} = tap${v} - tap_row${v} * params.kernel_w;
#end
    for (var row = first_row; row < end_row; row++) {
        let image = row / params.oh;
        let i = row - image * params.oh;
#for v in 0..VECTORS
        // A negative index is a large unsigned one.
        let x_row${v} = tap_row${v} + i * params.stride - params.padding;
        var x_column${v} = tap_column${v} - params.padding;
#if SUBGROUP
        let row_inside${v} = x_row${v} < vec4u(params.h);
        let x_at${v} = params.x_offset + (image * params.c + channel${v}) * plane
            + select(vec4u(0u), x_row${v} * params.w, row_inside${v});
#else
        let row_inside${v} = x_row${v} < params.h;
        let x_at${v} = select(0u, (image * params.h + x_row${v}) * params.w, row_inside${v});
#end
#end
#if SUBGROUP
        var dy_at = image * params.o * dy_plane + i * params.ow;
#else
        var dy_at = row * params.ow * params.dy_stride + first_channel / 4u;
#end
        for (var j = 0u; j < params.ow; j += ${UNROLL}u) {
#if SUBGROUP
#for u in 0..UNROLL
            // Behind the last pixel the first is loaded again and taken as zero, on both sides, since 0 times infinity
            // is not 0.
            let there${u} = j + ${u}u < params.ow;
            let dy_on${u} = dy_at + select(0u, ${u}u, there${u});
#for q in 0..ROWS/SUBGROUP
            let left${u}_${q} = select(0.0, f32(dy[dy_base${q} + dy_on${u}]), there${u});
#end
#for v in 0..VECTORS
            let inside${u}_${v} = row_inside${v} & (x_column${v} < vec4u(params.w)) & vec4<bool>(there${u});
            let pixel${u}_${v} = x_at${v} + select(vec4u(0u), x_column${v}, inside${u}_${v});
            let loaded${u}_${v} = vec4f(
                f32(x[pixel${u}_${v}.x]),
                f32(x[pixel${u}_${v}.y]),
                f32(x[pixel${u}_${v}.z]),
                f32(x[pixel${u}_${v}.w]),
            );
            let right${u}_${v} = select(vec4f(0.0), loaded${u}_${v}, inside${u}_${v});
            x_column${v} += params.stride;
#end
#end
            dy_at += ${UNROLL}u;
#else
#for v in 0..VECTORS
            let inside${v} = row_inside${v} && x_column${v} < params.w;
            let pixel${v} = select(0u, x_at${v} + x_column${v}, inside${v});
            let loaded${v} = vec4f(x[pixel${v} * params.channel_vectors + channel${v}]);
            let right0_${v} = select(vec4f(0.0), loaded${v}, inside${v});
            x_column${v} += params.stride;
#end
#for q in 0..ROWS/4
            let left0_${q} = vec4f(dy[dy_at + ${q}u]);
#end
            dy_at += params.dy_stride;
#end
#import outer_product
        }
    }
#if SUBGROUP
    var results: array<f32, ${ROWS * VECTORS * 4}>;
#for q in 0..ROWS
#for v in 0..VECTORS
#for k in 0..4
    results[${(q * VECTORS + v) * 4 + k}] = sum${q}_${v}[${k}];
#end
#end
#end
    // None behind the last split.
    let channels = select(0u, min(params.o - first_channel, ${ROWS}u), split < params.splits);
    var to = (split * params.o + first_channel) * columns();
    for (var q = 0u; q < channels; q++) {
#for v in 0..VECTORS
#for k in 0..4
        if column${v}[${k}] < columns() {
            partials[to + column${v}[${k}]] = results[q * ${4 * VECTORS}u + ${4 * v + k}u];
        }
#end
#end
        to += columns();
    }
#else
#for v in 0..VECTORS
    if column + ${v * WORKGROUP}u < columns() && split < params.splits {
        let to = (split * params.dy_stride * 4u + first_channel) * columns() + column + ${v * WORKGROUP}u;
#for q in 0..ROWS
        partials[to + ${q}u * columns()] = sum${q}_${v};
#end
    }
#end
#end
}

@compute @workgroup_size(256)
fn reduce(at: Invocation) {
    let index = index256(at);
    if index >= params.o * columns() {
        return;
    }
#if SUBGROUP
    var sum = 0.0;
    for (var split = 0u; split < params.splits; split++) {
        sum += sums[split * params.o * columns() + index];
    }
    if params.accumulate != 0u {
        sum += dw[index];
    }
    dw[index] = sum;
#else
    let o = index / columns();
    let column = index - o * columns();
    var sum = vec4f(0.0);
    let split_size = params.dy_stride * 4u * columns();
    for (var split = 0u; split < params.splits; split++) {
        sum += sums[split * split_size + index];
    }
    let tap = column / params.channel_vectors;
    let c = (column - tap * params.channel_vectors) * 4u;
    let taps = params.kernel_h * params.kernel_w;
#for i in 0..4
    if c + ${i}u < params.c {
        let to = (o * params.c + c + ${i}u) * taps + tap;
        dw[to] = select(0.0, dw[to], params.accumulate != 0u) + sum[${i}];
    }
#end
#end
}
