package socketio

// put sets a value in a map, which is made when it is needed.
func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[key] = value
}

// totalSize returns the number of bytes in all parts.
func totalSize[T ~[]byte](parts []T) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}
