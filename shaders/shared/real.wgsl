// What activations are stored as. They are computed with as f32: f32(..) of what is loaded, and real(..) of what is
// stored, which rounds.
#if F16
alias real = f16;
alias real4 = vec4<f16>;
#else
alias real = f32;
alias real4 = vec4f;
#end
