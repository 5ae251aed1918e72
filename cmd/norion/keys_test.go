package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
)

// FuzzKeys: any file gives keys that a server takes, or an error.
func FuzzKeys(f *testing.F) {
	k, _, err := httpapi.NewKey(httpapi.Key{Name: "x", Role: httpapi.RoleUser})
	require.NoError(f, err)
	f.Add([]byte(`[{"id":"` + k.ID + `","role":"user","sha256":"` + k.SHA256 + `"}]`))
	f.Add([]byte(`[{"id":"1"}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseKeys(data)
		if err == nil {
			_, err = httpapi.NewKeyring(all)
			require.NoError(t, err)
		}
	})
}
