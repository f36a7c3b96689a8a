#if MATRIX
    // The part of the tile that this subgroup computes.
    let matrix_row = subgroup / 2u * ${ROWS / 2}u;
    let matrix_column = subgroup % 2u * ${COLUMNS / 2}u;
#for i in 0..ROWS / 2 / MATRIX
#for j in 0..COLUMNS / 2 / MATRIX
    var sum${i}_${j} = MatrixC();
#end
#end
#else
    let rows = row_quad(lane);
    let columns = column_quad(lane);
#for r in 0..8
#for v in 0..QUADS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
#end
