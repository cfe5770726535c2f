-- The pairs with the signatures of both records.
SELECT signed_pairs.position, stays, signed_pairs.signature AS one, signatures.signature AS other
FROM signed_pairs JOIN signatures ON signatures.position = stays
