// Copies the weights of convolutions [O, C, KH, KW] to the layout [KH, KW, O, C], which the tiled
// kernels read. One launch copies all weights of a network, which are parts of one tensor.
//
//   source  the weights, f32
//   parts   five words per part of a weight: its first element in `source`; in vec4s, its first
//           element in `packed`, the pairs (o, c) of the part, and those of the weight; and KH KW
//   packed  the copies, rounded to f16 in the variant f16
//
// A workgroup of 256 copies a part of up to 1,024 pairs: a lane copies all taps of four pairs. The
// elements of a part are contiguous in `source`, and each tap's are contiguous in `packed`.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    parts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> parts: array<u32>;
@group(0) @binding(3) var<storage, read_write> packed: array<real4>;

@compute @workgroup_size(256)
fn pack_weights(at: Invocation) {
    let part = workgroup_index(at);
    if part >= params.parts || at.lane >= parts[5u * part + 2u] {
        return;
    }
    let to = parts[5u * part + 1u] + at.lane;
    let of_weight = parts[5u * part + 3u];
    let taps = parts[5u * part + 4u];
    let first = parts[5u * part] + 4u * at.lane * taps;
    for (var tap = 0u; tap < taps; tap++) {
        let of_tap = first + tap;
        packed[to + tap * of_weight] = real4(vec4f(
            source[of_tap],
            source[of_tap + taps],
            source[of_tap + 2u * taps],
            source[of_tap + 3u * taps],
        ));
    }
}
