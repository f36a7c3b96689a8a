// The gradient of the weight of a convolution, with tiles in workgroup memory. dy and x are read in
// place.
//
//   dw[o, c, u, v] = sum over n, i, j of
//     dy[n, o, i, j] x[n, c, stride i + u - padding, stride j + v - padding]
//
//   x     [N, C, H, W]
//   dy    [N, O, OH, OW]
//   sums  element (split, tap, o, c) at split to_split + tap to_tap + o to_row + c to_column: partial
//         sums [splits, taps, O, C], or dw [O, C, KH, KW] if there is one split
// The f16 variants have f16 x and dy, and f32 sums.
//
// A product of O rows, C columns and N OH OW terms for each tap. Terms are counted through planes
// and images; a split is a range of terms_per_split of them, and a multiple of 16. A workgroup
// computes one tile of one tap and split; see shared/tile.wgsl. Row tiles are fastest, then taps,
// then column tiles, so concurrent workgroups read the same images. The order of the sum is fixed.
//
// The lanes that load dy are the first ROWS, those that load x the last COLUMNS. Per block, a lane
// loads 16 elements:
//   vectors  for kernels of 1x1, stride 1, planes of whole vec4s: four neighbouring terms of four
//            channels, by vec4s, transposed in registers. The launch sets ow = OH OW and oh = 1.
//   gather   for all convolutions: one term of 16 channels, by elements. 16 lanes load neighbouring
//            terms. The position of the term in the plane advances without divisions. Channels beyond
//            the last one read any element of the binding; their sums are not stored.
// conv2d_dw_rows.wgsl is for kernels of 3x3.
//
// Workgroup memory and invocations: 16,384 bytes and 128 (64x64), 24,576 and 128 (64x128), 32,768
// and 256 (128x128). 2 N O OH OW C KH KW FLOPs. Bytes read by workgroups: 4 (f16: 2) N OH OW KH KW
// (O C / COLUMNS + C O / ROWS), mostly from caches; written: 4 splits KH KW O C. The speed on a
// hardware GPU is not measured.
#variant vectors_64x64 GATHER=0 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant vectors_64x128 GATHER=0 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant vectors_128x128 GATHER=0 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant gather_64x64 GATHER=1 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant gather_64x128 GATHER=1 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant gather_128x128 GATHER=1 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0

#f16

#if F16
enable f16;
#end

#import grid
#import real
#import conv2d_dw_params
#import tile

#if GATHER
alias Loaded = real;
#else
alias Loaded = real4;
#end

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Loaded>;
@group(0) @binding(2) var<storage, read> dy: array<Loaded>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(${LANES})
fn partial(at: Invocation) {
    let row_tiles = (params.o + ${ROWS - 1}u) / ${ROWS}u;
    let column_tiles = (params.c + ${COLUMNS - 1}u) / ${COLUMNS}u;
    var tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    tile /= row_tiles;
    let tap = tile % params.taps;
    tile /= params.taps;
    let first_column = tile % column_tiles * ${COLUMNS}u;
    // Surplus workgroups beyond the last split have no terms and store nothing.
    let split = tile / column_tiles;
    let first = min(split * params.terms_per_split, params.terms);
    let end = min(first + params.terms_per_split, params.terms);

    let lane = at.lane;
    let rows = row_quad(lane);
    let columns = column_quad(lane);
    let x_lane = lane - ${LANES - COLUMNS}u;
#if GATHER
    // This lane loads one term of every block, of the channels in four quads.
    let own_term = lane % 4u * 4u + lane / 8u % 4u;
    let row = lane / 4u % 2u + lane / 32u * 2u;
    let column = x_lane / 4u % 2u + x_lane / 32u * 2u;
    let u = tap / params.kernel_w;
    let v = tap - u * params.kernel_w;
#else
    // This lane loads four terms of every block, of the channels in one quad.
    let own_term = lane % 4u * 4u;
    let row = lane / 4u;
    let column = x_lane / 4u;
#end
    var term = first + own_term;
    let plane = params.oh * params.ow;
    var image = term / plane;
    var i = (term - image * plane) / params.ow;
    var j = term - image * plane - i * params.ow;
#for r in 0..8
#for v in 0..QUADS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    let blocks = (end - first + 15u) / 16u;
    for (var block = 0u; block <= blocks; block++) {
#for p in 0..1 + PART
        var part${p}: mat4x4f;
#end
        if block < blocks {
            let inside = term < end;
            // Lanes beyond the last term load term 0 instead.
            let own_image = select(0u, image, inside);
            let pixel = select(0u, i * params.ow + j, inside);
#if GATHER
            let x_row = i * params.stride + u - params.padding;
            let x_column = j * params.stride + v - params.padding;
            let x_inside = inside && x_row < params.h && x_column < params.w;
            let x_pixel = select(0u, x_row * params.w + x_column, x_inside);
            if lane < ${ROWS}u {
                let dy_at = params.dy_offset + pixel + (own_image * params.o + first_row + row * 4u) * plane;
#for q in 0..4
#for e in 0..4
                let dy${q}_${e} = f32(dy[min(dy_at + ${q * ROWS / 4 + e}u * plane, params.dy_last)]);
#end
                part0[${q}] = select(vec4f(0.0), vec4f(dy${q}_0, dy${q}_1, dy${q}_2, dy${q}_3), inside);
#end
            }
            if lane >= ${LANES - COLUMNS}u {
                let x_plane = params.h * params.w;
                let x_at = params.x_offset + x_pixel + (own_image * params.c + first_column + column * 4u) * x_plane;
#for q in 0..4
#for e in 0..4
                let x${q}_${e} = f32(x[min(x_at + ${q * COLUMNS / 4 + e}u * x_plane, params.x_last)]);
#end
                part${PART}[${q}] = select(vec4f(0.0), vec4f(x${q}_0, x${q}_1, x${q}_2, x${q}_3), x_inside);
#end
            }
#else
            if lane < ${ROWS}u {
#for e in 0..4
                let dy${e} = vec4f(dy[(params.dy_offset + pixel
                    + (own_image * params.o + min(first_row + row * 4u + ${e}u, params.o - 1u)) * plane) / 4u]);
                part0[${e}] = select(vec4f(0.0), dy${e}, inside);
#end
                part0 = transpose(part0);
            }
            if lane >= ${LANES - COLUMNS}u {
#for e in 0..4
                let x${e} = vec4f(x[(params.x_offset + pixel
                    + (own_image * params.c + min(first_column + column * 4u + ${e}u, params.c - 1u)) * plane) / 4u]);
                part${PART}[${e}] = select(vec4f(0.0), x${e}, inside);
#end
                part${PART} = transpose(part${PART});
            }
#end
            term += 16u;
            j += 16u;
            while j >= params.ow {
                j -= params.ow;
                i += 1u;
                if i == params.oh {
                    i = 0u;
                    image += 1u;
                }
            }
        }
        if block > 0u {
            let half = (block - 1u) % 2u;
#import tile_multiply
        }
        if block < blocks {
            let half = block % 2u;
            if lane < ${ROWS}u {
#for q in 0..4
#if GATHER
                a_tile[half * ${4 * ROWS}u + own_term * ${ROWS / 4}u + ((row + ${q * ROWS / 16}u) ^ (own_term / 4u * 2u))] = part0[${q}];
#else
                a_tile[half * ${4 * ROWS}u + (own_term + ${q}u) * ${ROWS / 4}u + (row ^ (own_term / 2u))] = part0[${q}];
#end
#end
            }
            if lane >= ${LANES - COLUMNS}u {
#for q in 0..4
#if GATHER
                b_tile[half * ${4 * COLUMNS}u + own_term * ${COLUMNS / 4}u + ((column + ${q * COLUMNS / 16}u) ^ (own_term / 4u * 2u))] = part${PART}[${q}];
#else
                b_tile[half * ${4 * COLUMNS}u + (own_term + ${q}u) * ${COLUMNS / 4}u + (column ^ (own_term / 2u))] = part${PART}[${q}];
#end
#end
            }
        }
        workgroupBarrier();
    }
    if split < params.splits {
        let to = split * params.to_split + tap * params.to_tap;
#for v in 0..QUADS
#for r in 0..8
        let o${r}_${v} = first_row + rows * 4u + ${r / 4 * ROWS / 2 + r % 4}u;
        let c${r}_${v} = first_column + columns * 4u + ${64 * v}u;
        if o${r}_${v} < params.o {
#for e in 0..4
            if c${r}_${v} + ${e}u < params.c {
                sums[to + o${r}_${v} * params.to_row + (c${r}_${v} + ${e}u) * params.to_column] = sum${r}_${v}[${e}];
            }
#end
        }
#end
#end
    }
}
