// Philox4x32-10 (Salmon et al. 2011), with the results of src/philox.rs.

// The upper and lower 32 bits of a b, from 16-bit halves, since WGSL has no 64-bit product.
fn multiply_wide(a: u32, b: u32) -> vec2u {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    // Neither sum exceeds (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
    let middle = a_high * b_low + (low >> 16u);
    let other = a_low * b_high + (middle & 0xffffu);
    return vec2u(a_high * b_high + (middle >> 16u) + (other >> 16u), a * b);
}

// Four random words: ten rounds on `counter` with the key `seed`.
fn philox4x32(seed: vec2u, counter: vec4u) -> vec4u {
    var key = seed;
    var words = counter;
    for (var round = 0u; round < 10u; round++) {
        let first = multiply_wide(0xD2511F53u, words.x);
        let second = multiply_wide(0xCD9E8D57u, words.z);
        words = vec4u(second.x ^ words.y ^ key.x, second.y, first.x ^ words.w ^ key.y, first.y);
        key += vec2u(0x9E3779B9u, 0xBB67AE85u);
    }
    return words;
}
