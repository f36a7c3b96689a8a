// The weight of a 3x3 convolution with a matrix for each tap, as gemm_pairs.wgsl reads it, for Vulkan on a processor.
//
//   by_taps[u, v, o, c] = w[o, c, u, v]
//
// C is a multiple of 8. An invocation takes eight channels of one o: 72 elements that lie together, as pairs, and
// stores them in nine places, eight at once (docs/performance.md, WGSL on llvmpipe). Workgroups of 8 along one
// dimension.
//
// Floor: 8 w bytes over the bandwidth.
#import grid
#import pairs

struct Params {
    // O C / 8
    eights: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<vec4<i64>>;
@group(0) @binding(2) var<storage, read_write> by_taps: array<vec4<i64>>;

@compute @workgroup_size(8)
fn turn(at: Invocation) {
    let eight = workgroup_index(at) * 8u + at.lane;
    if eight >= params.eights {
        return;
    }
#for i in 0..9
    let unit${i} = w[eight * 9u + ${i}u];
    let lower${i} = lower_four(unit${i});
    let upper${i} = upper_four(unit${i});
#for k in 0..4
    let element${8 * i + k} = lower${i}[${k}];
    let element${8 * i + 4 + k} = upper${i}[${k}];
#end
#end
    // Element 9 c + t is that of channel c and tap t.
#for t in 0..9
    by_taps[${t}u * params.eights + eight] = eight_of(
        vec4f(element${t}, element${9 + t}, element${18 + t}, element${27 + t}),
        vec4f(element${36 + t}, element${45 + t}, element${54 + t}, element${63 + t}),
    );
#end
}
