// The gradient of a convolution's weight, in two kernels.
//
//   dw[o, c, u, v] = sum over n, i, j of dy[n, o, i, j] x[n, c, stride i + u - padding, stride j + v - padding]
//
//   x         [N H W, 4 channel_vectors]   channels last, padded to vec4s (pack.wgsl)
//   dy        [N OH OW, 4 dy_stride]       channels last, padded to a whole tile (pack.wgsl)
//   partials  [splits, O padded, columns] vec4s: the sums over some rows of dy each; a column is a tap and four channels
//   dw        [O, C, KH, KW]
//
// partial: the rows (n, i) of dy are cut into `splits` runs of `rows_per_split`. An invocation holds 16 output channels x
//   one column in registers, a workgroup of 64 covers 16 channels x 64 columns of one split. For each pixel an invocation
//   loads one vec4 of x (neighbours load neighbouring channels) and 16 elements of dy, which are the same for the whole
//   workgroup. Invocations behind the last column repeat it and store nothing. One workgroup a tile, channel tiles
//   fastest, splits slowest.
// reduce: one invocation a vec4 of the result adds the splits in their order, to dw where it follows an earlier slice of
//   the batch. Workgroups of 256.
//
// Both orders are fixed, so the same call gives the same bits; there are no atomics.
//
// Floors: 2 N O OH OW C KH KW FLOPs over the peak; 12 (x + dy) bytes over the bandwidth, packing counted in, and
// 8 splits dw.

#import grid

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
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(4) var<storage, read> sums: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dw: array<f32>;

fn columns() -> u32 {
    return params.kernel_h * params.kernel_w * params.channel_vectors;
}

@compute @workgroup_size(64)
fn partial(at: Invocation) {
    let channel_tiles = params.dy_stride / 4u;
    let column_tiles = (columns() + 63u) / 64u;
    let tile = workgroup_index(at);
    let channel_vector = tile % channel_tiles * 4u;
    let column = tile / channel_tiles % column_tiles * 64u + at.lane;
    // Folding may launch workgroups behind the last split: they have no rows and store nothing.
    let split = tile / channel_tiles / column_tiles;
    let first_row = min(split * params.rows_per_split, params.rows);
    let end_row = min(first_row + params.rows_per_split, params.rows);

    let own = min(column, columns() - 1u);
    let tap = own / params.channel_vectors;
    let u = tap / params.kernel_w;
    let v = tap - u * params.kernel_w;
    let own_channel = own - tap * params.channel_vectors;
#for q in 0..16
    var sum${q} = vec4f(0.0);
#end
    for (var row = first_row; row < end_row; row++) {
        let image = row / params.oh;
        // A negative index is a large unsigned one.
        let x_row = (row - image * params.oh) * params.stride + u - params.padding;
        let row_inside = x_row < params.h;
        let x_at = select(0u, (image * params.h + x_row) * params.w, row_inside);
        var x_column = v - params.padding;
        var dy_at = row * params.ow * params.dy_stride + channel_vector;
        for (var j = 0u; j < params.ow; j++) {
            let inside = row_inside && x_column < params.w;
            let pixel = select(0u, x_at + x_column, inside);
            let value = select(vec4f(0.0), x[pixel * params.channel_vectors + own_channel], inside);
#for q in 0..4
            let gradient${q} = dy[dy_at + ${q}u];
#for r in 0..4
            sum${4 * q + r} = fma(vec4f(gradient${q}[${r}]), value, sum${4 * q + r});
#end
#end
            x_column += params.stride;
            dy_at += params.dy_stride;
        }
    }
    if column < columns() && split < params.splits {
#for q in 0..16
        partials[((split * channel_tiles * 4u + channel_vector) * 4u + ${q}u) * columns() + column] = sum${q};
#end
    }
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
