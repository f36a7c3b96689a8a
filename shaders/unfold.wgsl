// Images as a 3x3 kernel of stride 1 and padding 1 sees them, in whole vectors: the pixels that a tap meets, one after
// the other in the order of the result's pixels.
//
//   y[u, v, n, c, i, j] = x[n, c, i + u - 1, j + v - 1], 0 outside the planes
//
//   x  [N, C, H, W]                   W is whole units
//   y  [U, 3, N, C, H + 3 - U, W]     U = 3; or U = 1, where the taps of the kernel's other rows are W elements
//                                     further on each
//
// An invocation makes a plane of x, unit by unit of `eights` (as pairs: on a processor's Vulkan half of the price,
// docs/performance.md, WGSL on llvmpipe) or `fours`; it reads each once, or U times. Workgroups of 8 along one
// dimension.
//
// Floor: 4 (x + y) bytes over the bandwidth.
#variant eights WIDTH=8 PAIRS=1 F16=0
#variant fours WIDTH=4 PAIRS=0 F16=0

#import grid
#import pixels

struct Params {
    // N x C
    planes: u32,
    height: u32,
    // in units
    width: u32,
    // units before the first plane of x
    offset: u32,
    // U, and H + 3 - U
    row_taps: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> y: array<Stored>;

@compute @workgroup_size(8)
fn unfold(at: Invocation) {
    let plane = workgroup_index(at) * 8u + at.lane;
    if plane >= params.planes {
        return;
    }
    let tap = params.planes * params.rows * params.width;
    let nothing = stored(Pixels(0.0), Pixels(0.0));
    for (var u = 0u; u < params.row_taps; u++) {
        for (var i = 0u; i < params.rows; i++) {
            // Row -1 is a large unsigned one.
            let row = i + u - 1u;
            let inside = row < params.height;
            let read_at = params.offset + (plane * params.height + select(0u, row, inside)) * params.width;
            let write_at = u * 3u * tap + (plane * params.rows + i) * params.width;
            var last = 0.0;
            var unit = select(nothing, x[read_at], inside);
            for (var j = 0u; j < params.width; j++) {
                let follows = inside & (j + 1u < params.width);
                let next = select(nothing, x[read_at + select(0u, j + 1u, follows)], follows);
                let first = pixels0(unit);
                let behind = pixels0(next).x;
#if PAIRS
                let second = pixels1(unit);
                y[write_at + j] = stored(vec4f(last, first.xyz), vec4f(first.w, second.xyz));
                y[write_at + tap + j] = unit;
                y[write_at + 2u * tap + j] = stored(vec4f(first.yzw, second.x), vec4f(second.yzw, behind));
                last = second.w;
#else
                y[write_at + j] = vec4f(last, first.xyz);
                y[write_at + tap + j] = unit;
                y[write_at + 2u * tap + j] = vec4f(first.yzw, behind);
                last = first.w;
#end
                unit = next;
            }
        }
    }
}
