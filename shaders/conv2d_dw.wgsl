// The gradient of the weight of a convolution, in two kernels.
//
//   dw[o, c, u, v] = sum over n, i, j of
//     dy[n, o, i, j] x[n, c, stride i + u - padding, stride j + v - padding]
//
//   x         [N H W, 4 channel_vectors]   channels last, padded to vec4s (gemm_pack.wgsl)
//   dy        [N OH OW, 4 dy_stride]       channels last, padded to a whole tile (gemm_pack.wgsl)
//   partials  [splits, O padded, columns]  vec4s; a column is a tap and four channels
//   dw        [O, C, KH, KW]
// The f16 variant has f16 x and dy, and f32 sums and dw.
//
// partial: the rows (n, i) of dy are cut into splits of rows_per_split rows. An invocation holds
//   ROWS output channels x VECTORS columns of one split in registers, and a workgroup WORKGROUP
//   times as many columns. For each pixel, an invocation loads its elements of x. The ROWS elements
//   of dy are uniform in the workgroup. Invocations beyond the last column repeat it and store
//   nothing. One workgroup per tile, channel tiles fastest, splits slowest.
// reduce: one invocation per vec4 of the result adds the splits in order, and adds dw if an earlier
//   slice of the batch has written it. Workgroups of 256.
//
// The order of both sums is fixed, so the same call gives the same bits.
//
// Lower bounds of the time: 2 N O OH OW C KH KW FLOPs at the peak rate; 12 (f16: 6) (x + dy) bytes,
// including packing, and 8 splits dw at the memory bandwidth.

#variant plain ROWS=8 VECTORS=2 WORKGROUP=64

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
    // vec4s per row of dy
    dy_stride: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride: u32,
    padding: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<real4>;
@group(0) @binding(2) var<storage, read> dy: array<real4>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(4) var<storage, read> sums: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dw: array<f32>;

fn columns() -> u32 {
    return params.kernel_h * params.kernel_w * params.channel_vectors;
}

@compute @workgroup_size(${WORKGROUP})
fn partial(at: Invocation) {
    let channel_tiles = (params.o + ${ROWS - 1}u) / ${ROWS}u;
    let width = ${VECTORS * WORKGROUP}u;
    let column_tiles = (columns() + width - 1u) / width;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * ${ROWS}u;
    let column = tile / channel_tiles % column_tiles * width + at.lane;
    // Surplus workgroups beyond the last split have no rows and store nothing.
    let split = tile / channel_tiles / column_tiles;
    let first_row = min(split * params.rows_per_split, params.rows);
    let end_row = min(first_row + params.rows_per_split, params.rows);
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
#for v in 0..VECTORS
    let own${v} = min(column + ${v * WORKGROUP}u, columns() - 1u);
    let tap${v} = own${v} / params.channel_vectors;
    let channel${v} = own${v} - tap${v} * params.channel_vectors;
    let tap_row${v} = tap${v} / params.kernel_w;
    let tap_column${v} = tap${v} - tap_row${v} * params.kernel_w;
#end
    for (var row = first_row; row < end_row; row++) {
        let image = row / params.oh;
        let i = row - image * params.oh;
#for v in 0..VECTORS
        // A negative index wraps around to a large number.
        let x_row${v} = tap_row${v} + i * params.stride - params.padding;
        var x_column${v} = tap_column${v} - params.padding;
        let row_inside${v} = x_row${v} < params.h;
        let x_at${v} = select(0u, (image * params.h + x_row${v}) * params.w, row_inside${v});
#end
        var dy_at = row * params.ow * params.dy_stride + first_channel / 4u;
        for (var j = 0u; j < params.ow; j++) {
#for v in 0..VECTORS
            let inside${v} = row_inside${v} && x_column${v} < params.w;
            let pixel${v} = select(0u, x_at${v} + x_column${v}, inside${v});
            let loaded${v} = vec4f(x[pixel${v} * params.channel_vectors + channel${v}]);
            let right${v} = select(vec4f(0.0), loaded${v}, inside${v});
            x_column${v} += params.stride;
#end
#for q in 0..ROWS/4
            let left${q} = vec4f(dy[dy_at + ${q}u]);
#end
            dy_at += params.dy_stride;
#import outer_product
        }
    }
#for v in 0..VECTORS
    if column + ${v * WORKGROUP}u < columns() && split < params.splits {
        let to = (split * params.dy_stride * 4u + first_channel) * columns() + column + ${v * WORKGROUP}u;
#for q in 0..ROWS
        partials[to + ${q}u * columns()] = sum${q}_${v};
#end
    }
#end
}

@compute @workgroup_size(256)
fn reduce(at: Invocation) {
    let index = index256(at);
    if index >= params.o * columns() {
        return;
    }
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
}
