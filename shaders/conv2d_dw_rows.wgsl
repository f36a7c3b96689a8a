// The gradient of the weight of a convolution of 3x3, stride 1 and padding 1, for rows of a
// multiple of 16 pixels, of 8 or of 4. Formula, tensors and parameters are those of
// conv2d_dw_tiled.wgsl.
//
// The three taps of a row of the kernel meet the same row of x, shifted by a pixel. So a workgroup
// of 128 computes 64 output channels x 32 input channels x 3 taps from one tile of dy and one of x.
// A lane computes 4 x 4 x 3 of them. A block is 16 pixels: a part of a row, two rows or four. Each
// row or part has one more pixel of x at either end. For four pixels, a lane loads four vec4s of dy
// and six of x, and adds 192 products.
//
// Blocks are double-buffered as in shared/tile.wgsl. The first 64 lanes load dy by vec4s along
// pixels, and transpose them. The last 96 load x, each one pixel of eight channels; x is not
// aligned to vec4s. A staged pixel of x is padded to nine vec4s, so that stores use all banks.
//
// Tiles of output channels are fastest, then rows of the kernel, then tiles of input channels. The
// order of the sum is fixed.
//
// Workgroup memory: 15,104 bytes; 128 invocations. 18 N O H W C FLOPs. Bytes read by workgroups: 4
// (f16: 2) N H W (3 O C / 32 + 3.4 C O / 64), mostly from caches; written: 36 splits O C. The speed
// on a hardware GPU is not measured.

#f16

#if F16
enable f16;
#end

#import grid
#import real
#import conv2d_dw_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<real>;
@group(0) @binding(2) var<storage, read> dy: array<real4>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

// 16 pixels of 16 vec4s, with the swizzle of shared/tile.wgsl, and up to 24 of 8, each twice.
var<workgroup> dy_tile: array<vec4f, 512>;
var<workgroup> x_tile: array<vec4f, 432>;

@compute @workgroup_size(128)
fn partial(at: Invocation) {
    let row_tiles = (params.o + 63u) / 64u;
    let column_tiles = (params.c + 31u) / 32u;
    var tile = workgroup_index(at);
    let first_o = tile % row_tiles * 64u;
    tile /= row_tiles;
    let u = tile % 3u;
    tile /= 3u;
    let first_c = tile % column_tiles * 32u;
    // Surplus workgroups beyond the last split have no terms and store nothing.
    let split = tile / column_tiles;
    let first = min(split * params.terms_per_split, params.terms);
    let end = min(first + params.terms_per_split, params.terms);

    let lane = at.lane;
    let o_quad = lane / 8u;
    let c_quad = lane % 8u;
    let plane = params.h * params.w;
    // This lane loads four pixels of dy from the term `term` on, of the channels in one quad.
    let dy_quad = lane / 4u;
    let own_term = lane % 4u * 4u;
    var term = first + own_term;
    var dy_image = term / plane;
    var dy_pixel = term - dy_image * plane;
    // It loads the pixel `staged` of x, which is `shift` pixels from the start of its row or part
    // of a row, of the channels in two quads.
    let x_lane = lane - 32u;
    let staged = x_lane % 24u;
    let x_quad = x_lane / 24u;
    let run = staged / ((1u << params.run_log2) + 2u);
    let shift = staged - run * ((1u << params.run_log2) + 2u) - 1u;
    let is_staged = lane >= 32u && (run << params.run_log2) < 16u;
    var x_term = first + (run << params.run_log2);
    var image = x_term / plane;
    var i = (x_term - image * plane) / params.w;
    var j = x_term - image * plane - i * params.w;
#for r in 0..4
#for v in 0..3
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    let blocks = (end - first + 15u) / 16u;
    for (var block = 0u; block <= blocks; block++) {
        var dy_part: mat4x4f;
#for q in 0..2
        var x_part${q} = vec4f(0.0);
#end
        if block < blocks {
            if lane < 64u {
                // Lanes beyond the last term load term 0 instead.
                let inside = term < end;
                let own_image = select(0u, dy_image, inside);
                let pixel = select(0u, dy_pixel, inside);
#for e in 0..4
                let dy${e} = vec4f(dy[(params.dy_offset + pixel
                    + (own_image * params.o + min(first_o + dy_quad * 4u + ${e}u, params.o - 1u)) * plane) / 4u]);
                dy_part[${e}] = select(vec4f(0.0), dy${e}, inside);
#end
                dy_part = transpose(dy_part);
            }
            if is_staged {
                // A negative index wraps around to a large number.
                let row = i + u - 1u;
                let column = j + shift;
                let inside = x_term < end && row < params.h && column < params.w;
                let own_image = select(0u, image, inside);
                let pixel = select(0u, row * params.w + column, inside);
                let x_at = params.x_offset + pixel + (own_image * params.c + first_c + x_quad * 4u) * plane;
#for q in 0..2
#for e in 0..4
                // Channels beyond the last one are not stored.
                let x${q}_${e} = f32(x[min(x_at + ${16 * q + e}u * plane, params.x_last)]);
#end
                x_part${q} = select(vec4f(0.0), vec4f(x${q}_0, x${q}_1, x${q}_2, x${q}_3), inside);
#end
            }
            term += 16u;
            dy_pixel += 16u;
            while dy_pixel >= plane {
                dy_pixel -= plane;
                dy_image += 1u;
            }
            x_term += 16u;
            j += 16u;
            while j >= params.w {
                j -= params.w;
                i += 1u;
                if i == params.h {
                    i = 0u;
                    image += 1u;
                }
            }
        }
        if block > 0u {
            let half = (block - 1u) % 2u;
            for (var k = 0u; k < 16u; k += 4u) {
                let dy_at = half * 256u + k * 16u + (o_quad ^ (k / 2u));
                // The pixels before this row or part of a row, and its first one more.
                let x_at = half * 216u + (k + (k >> params.run_log2) * 2u) * 9u + c_quad;
#for e in 0..6
                let right${e} = x_tile[x_at + ${9 * e}u];
#end
#for t in 0..4
                let left${t} = dy_tile[dy_at + ${16 * t}u];
#for v in 0..3
#for r in 0..4
                sum${r}_${v} = fma(vec4f(left${t}[${r}]), right${t + v}, sum${r}_${v});
#end
#end
#end
            }
        }
        if block < blocks {
            let half = block % 2u;
            if lane < 64u {
#for e in 0..4
                dy_tile[half * 256u + (own_term + ${e}u) * 16u + (dy_quad ^ (own_term / 2u))] = dy_part[${e}];
#end
            }
            if is_staged {
#for q in 0..2
                x_tile[half * 216u + staged * 9u + x_quad + ${4 * q}u] = x_part${q};
#end
            }
        }
        workgroupBarrier();
    }
    if split < params.splits {
        let to = split * params.to_split;
        let first_channel = first_c + c_quad * 4u;
#for r in 0..4
        if first_o + o_quad * 4u + ${r}u < params.o {
            let row = to + (first_o + o_quad * 4u + ${r}u) * params.to_row;
#for v in 0..3
#for e in 0..4
            if first_channel + ${e}u < params.c {
                sums[row + (u * 3u + ${v}u) * params.to_tap + (first_channel + ${e}u) * params.to_column] = sum${r}_${v}[${e}];
            }
#end
#end
        }
#end
    }
}
