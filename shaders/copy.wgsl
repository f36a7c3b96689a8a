// Copies of words of four bytes, of any type: y[y_start + i] = x[x_start + i] for i < count.
//
// A copy of the command encoder cannot be used, since both tensors may lie in one buffer; and it would end the pass.
//
// One unit of WIDTH words an invocation, workgroups of 256; vectors where both places and the count are whole vec4s,
// which `x_start`, `y_start` and `count` then count. Floor: 8 bytes a word over the bandwidth.
#variant words WIDTH=1
#variant vectors WIDTH=4

#import grid

struct Params {
    count: u32,
    x_start: u32,
    y_start: u32,
}

#if WIDTH == 4
alias Unit = vec4u;
#else
alias Unit = u32;
#end

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Unit>;
@group(0) @binding(2) var<storage, read_write> y: array<Unit>;

@compute @workgroup_size(256)
fn copy(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[params.y_start + i] = x[params.x_start + i];
    }
}
