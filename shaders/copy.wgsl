// Copies of 32-bit words of any type: y[y_start + i] = x[x_start + i] for i < count.
//
// A copy command of the encoder cannot be used, because both tensors may be in one buffer.
//
// Each invocation copies one unit of WIDTH words, in workgroups of 256. `count`, `x_start` and
// `y_start` count units. The variant vectors requires that all three are whole vec4s.
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
