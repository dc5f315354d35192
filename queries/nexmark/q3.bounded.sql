-- Nexmark q3 over recorded rows, as the original writes it: the join without bounds.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT p.name, p.city, p.state, a.id
FROM auction a
JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND (p.state = 'or' OR p.state = 'id' OR p.state = 'ca');
