-- What stands under the key $1 although it has another name.
SELECT format('%s %s in namespace %s', space, name, namespace) FROM grants
WHERE key = $1 AND (namespace, space, name) <> ($2, $3, $4) LIMIT 1
