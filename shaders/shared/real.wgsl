// The type of stored activations. Kernels compute in f32: they convert loaded values by f32(..),
// and round stored values by real(..).
#if F16
alias real = f16;
alias real4 = vec4<f16>;
#else
alias real = f32;
alias real4 = vec4f;
#end
