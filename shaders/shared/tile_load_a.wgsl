            // Four terms of four rows of A, in place: from four lines of [K, M] or of [M, K], which
            // is transposed in registers.
            if lane < ${ROWS}u {
                let own = term + a_term;
                let line = select(a_row, own, a_by_terms);
                let element = select(own, a_row, a_by_terms);
#for i in 0..4
                part0[${i}] = load_a(a_from + min(line + ${i}u, a_lines - 1u) * params.a_stride, element, a_last);
#end
                if !a_by_terms {
                    part0 = transpose(part0);
                }
#for i in 0..4
                part0[${i}] = select(Four(0.0), part0[${i}], own + ${i}u < end);
#end
            }
