// Two elements of four bytes, loaded or stored as one i64: on a processor's Vulkan, half of the tests of the buffer's
// end (docs/performance.md, WGSL on llvmpipe). The upper one comes by an arithmetic shift: from a logical one the
// compiler makes a shuffle of 512 bits and keeps its whole result.
fn lower(pair: i64) -> f32 {
    return bitcast<f32>(u32(pair));
}

fn upper(pair: i64) -> f32 {
    return bitcast<f32>(u32(pair >> 32u));
}

// By way of u64: an i64 made of a u32 may have its sign.
fn pair_of(lower: u32, upper: u32) -> i64 {
    return bitcast<i64>(u64(lower) | (u64(upper) << 32u));
}

// Eight elements as four pairs: the first four, the second four, and back.
fn lower_four(eight: vec4<i64>) -> vec4f {
    return vec4f(lower(eight.x), upper(eight.x), lower(eight.y), upper(eight.y));
}

fn upper_four(eight: vec4<i64>) -> vec4f {
    return vec4f(lower(eight.z), upper(eight.z), lower(eight.w), upper(eight.w));
}

fn eight_of(first: vec4f, second: vec4f) -> vec4<i64> {
    let a = bitcast<vec4u>(first);
    let b = bitcast<vec4u>(second);
    return vec4<i64>(pair_of(a.x, a.y), pair_of(a.z, a.w), pair_of(b.x, b.y), pair_of(b.z, b.w));
}
