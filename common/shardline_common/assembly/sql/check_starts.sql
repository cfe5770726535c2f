-- Where each shard begins, from lines `[split,number,order,position]`.
INSERT INTO starts SELECT entry[1], entry[2], entry[3], entry[4] FROM step;
