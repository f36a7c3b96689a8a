// Two elements of four bytes, loaded or stored as one i64: on a processor's Vulkan, half of the tests of the buffer's end
// (docs/performance.md, WGSL on llvmpipe). The upper one comes by an arithmetic shift: from a logical one the compiler makes a
// shuffle of 512 bits and keeps its whole result.
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
