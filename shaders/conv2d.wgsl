// Convolution as implicit GEMM: the forward pass, and the gradient of its input, which is the same sum with other
// numbers.
//
//   output[n, q, out_step i + out_row, out_step j + out_column]
//     = sum over channels p, taps u < taps_h, v < taps_w of
//       input[n, p, step i + row + direction u, step j + column + direction v] w[q, p, tap(u, v)]
//
// for i < grid_h, j < grid_w; input is 0 outside its planes.
//
//   input  [N, P, input_h, input_w]   x, or dy for dx
//   w       [KH KW, P, Q]               w[tap w_tap + p w_term + q w_row]
//   output  [N, Q, output_h, output_w]  y, or dx
//
//   forward: step = stride, direction = 1, row = column = -padding, out_step = 1; all taps.
//   dx: an input pixel meets only those taps that land on the stride's grid, the same ones for all pixels with the
//       same remainder by the stride. So dx is one launch for each pair of remainders (r, s): out_step = stride,
//       out_row = r, out_column = s, step = 1, direction = -1, taps (r + padding) mod stride + u stride,
//       row = (r + padding) div stride. Nothing is computed that is thrown away, and each pixel is written once.
//
// Tile: an invocation holds ROWS output channels x 4 VECTORS pixels in registers, a workgroup ROWS channels x
// 4 VECTORS WORKGROUP pixels, which run through rows, planes and images, so that small planes fill it too. A pixel is
// taken apart into image, row and column once. For each tap and channel an invocation loads its pixels (neighbours load
// neighbours); the ROWS weights are the same for the whole workgroup. The sum runs over blocks of channels, then taps,
// then the channels of a block, so that a block's pixels stay in the cache from tap to tap. Invocations behind the last
// pixel repeat it and store nothing, so that control flow stays uniform.
//
// The variants are those of gemm.wgsl, with its reasons:
//   - plain and narrow (up to four output channels, the images of a stem's dx): w is vec4s along q, packed and padded
//     to whole tiles (w_tap and w_term count vec4s; w_row is 1).
//   - subgroup8 and subgroup32: w is single elements, where they lie in their tensor.
// On a processor 1x1 kernels, and 3x3 ones with a padding of 1, of stride 1 are products of gemm_pairs.wgsl where all
// lies in whole vectors (src/device/gpu/conv2d_pairs.rs).
// A further one, staged in workgroup memory, is conv2d_staged.wgsl. Each has a twin for f16 input, w and output, whose
// sums are f32 too.
//
// One workgroup a tile, channel tiles fastest: the workgroups that run together share pixels.
//
// Floors: 2 N Q OH OW P KH KW FLOPs over the peak; 4 (f16: 2) (input + w + output) bytes over the bandwidth.
#variant plain ROWS=8 VECTORS=2 WORKGROUP=64 UNROLL=1 SUBGROUP=0 BLOCK=16
#variant narrow ROWS=4 VECTORS=2 WORKGROUP=64 UNROLL=1 SUBGROUP=0 BLOCK=16
#variant subgroup8_large ROWS=64 VECTORS=2 WORKGROUP=8 UNROLL=2 SUBGROUP=8 BLOCK=64
#variant subgroup8_small ROWS=16 VECTORS=1 WORKGROUP=8 UNROLL=4 SUBGROUP=8 BLOCK=64
#variant subgroup32 ROWS=32 VECTORS=1 WORKGROUP=32 UNROLL=2 SUBGROUP=32 BLOCK=64

#f16

#if F16
enable f16;
#end

#import grid
#import real
#import conv2d_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<real>;
#if SUBGROUP
@group(0) @binding(2) var<storage, read> w: array<real>;
#else
@group(0) @binding(2) var<storage, read> w: array<real4>;
#end
@group(0) @binding(3) var<storage, read_write> output: array<real>;

// Channels between two changes of the tap.
const BLOCK: u32 = ${BLOCK}u;

@compute @workgroup_size(${WORKGROUP})
fn conv2d(
    at: Invocation,
#if SUBGROUP
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#end
) {
    let channel_tiles = (params.output_channels + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * ${ROWS}u;
    let first_pixel = tile / channel_tiles * ${4 * VECTORS * WORKGROUP}u + at.lane;
    let grid = params.grid_h * params.grid_w;
    let plane = params.input_h * params.input_w;
    let size_h = vec4u(params.input_h);
    let size_w = vec4u(params.input_w);
#for v in 0..VECTORS
    let own${v} = vec4u(first_pixel + ${4 * v * WORKGROUP}u)
        + vec4u(0u, ${WORKGROUP}u, ${2 * WORKGROUP}u, ${3 * WORKGROUP}u);
    let pixel${v} = min(own${v}, vec4u(params.pixels - 1u));
    let image${v} = pixel${v} / grid;
    let in_grid${v} = pixel${v} - image${v} * grid;
    let i${v} = in_grid${v} / params.grid_w;
    let j${v} = in_grid${v} - i${v} * params.grid_w;
    let base${v} = params.input_offset + image${v} * params.input_channels * plane;
    let row${v} = vec4i(i${v} * params.step) + params.row;
    let column${v} = vec4i(j${v} * params.step) + params.column;
#end
#if SUBGROUP
#for q in 0..ROWS/SUBGROUP
    let w_channel${q} = min(first_channel + ${SUBGROUP * q}u + subgroup_lane, params.output_channels - 1u);
    let w_offset${q} = w_channel${q} * params.w_row;
#end
#else
    let w_offset = first_channel / 4u;
#end
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    for (var block = 0u; block < params.input_channels; block += BLOCK) {
        let block_end = min(block + BLOCK, params.input_channels);
        for (var u = 0u; u < params.taps_h; u++) {
            let down = params.direction * i32(u);
            let tap_row = (params.tap_row + u * params.tap_step) * params.kernel_w + params.tap_column;
            for (var v = 0u; v < params.taps_w; v++) {
                let right = params.direction * i32(v);
#for v in 0..VECTORS
                // A negative index is a large unsigned one.
                let input_row${v} = vec4u(row${v} + down);
                let input_column${v} = vec4u(column${v} + right);
                let inside${v} = (input_row${v} < size_h) & (input_column${v} < size_w);
                // A pixel outside reads the first element of its channel instead.
                var read_at${v} = base${v} + block * plane
                    + select(vec4u(0u), input_row${v} * params.input_w + input_column${v}, inside${v});
#end
                var left_at = (tap_row + v * params.tap_step) * params.w_tap + block * params.w_term;
                for (var p = block; p < block_end; p += ${UNROLL}u) {
#for u in 0..UNROLL
#if SUBGROUP
                    // Behind the last channel the first is loaded again and taken as zero, on both sides, since 0 times
                    // infinity is not 0.
                    let there${u} = p + ${u}u < block_end;
                    let input_on${u} = select(0u, ${u}u * plane, there${u});
                    let w_on${u} = left_at + select(0u, ${u}u * params.w_term, there${u});
#for q in 0..ROWS/SUBGROUP
                    let left${u}_${q} = select(0.0, f32(w[w_offset${q} + w_on${u}]), there${u});
#end
#else
                    let there${u} = true;
                    let input_on${u} = 0u;
#for q in 0..ROWS/4
                    let left${u}_${q} = vec4f(w[w_offset + left_at + ${q}u]);
#end
#end
#for v in 0..VECTORS
                    let loaded${u}_${v} = vec4f(
                        f32(input[read_at${v}.x + input_on${u}]),
                        f32(input[read_at${v}.y + input_on${u}]),
                        f32(input[read_at${v}.z + input_on${u}]),
                        f32(input[read_at${v}.w + input_on${u}]),
                    );
                    let right${u}_${v} = select(vec4f(0.0), loaded${u}_${v}, inside${v} & vec4<bool>(there${u}));
#end
#end
#import outer_product
#for v in 0..VECTORS
                    read_at${v} += ${UNROLL}u * plane;
#end
                    left_at += ${UNROLL}u * params.w_term;
                }
            }
        }
    }

    let output_plane = params.output_h * params.output_w;
#for v in 0..VECTORS
    let write_at${v} = params.output_offset + (image${v} * params.output_channels + first_channel) * output_plane
        + (i${v} * params.out_step + params.out_row) * params.output_w + j${v} * params.out_step + params.out_column;
#end
#if SUBGROUP
    var sums: array<f32, ${ROWS * VECTORS * 4}>;
#for q in 0..ROWS
#for v in 0..VECTORS
#for k in 0..4
    sums[${(q * VECTORS + v) * 4 + k}] = sum${q}_${v}[${k}];
#end
#end
#end
    let channels = min(params.output_channels - first_channel, ${ROWS}u);
    for (var q = 0u; q < channels; q++) {
#for v in 0..VECTORS
#for k in 0..4
        if own${v}[${k}] < params.pixels {
            output[write_at${v}[${k}] + q * output_plane] = real(sums[q * ${4 * VECTORS}u + ${4 * v + k}u]);
        }
#end
#end
    }
#else
#for v in 0..VECTORS
#for k in 0..4
    if own${v}[${k}] < params.pixels {
#for q in 0..ROWS
        if first_channel + ${q}u < params.output_channels {
            output[write_at${v}[${k}] + ${q}u * output_plane] = real(sum${q}_${v}[${k}]);
        }
#end
    }
#end
#end
#end
}
