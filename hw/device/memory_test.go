package device

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const meminfo = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n"

// tree is a proc and sys tree from names and contents.
func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, data := range files {
		out[name] = &fstest.MapFile{Data: []byte(data)}
	}
	return out
}

func TestReadMemory(t *testing.T) {
	t.Parallel()
	machine := RAM{TotalBytes: 16000000 << 10, AvailableBytes: 8000000 << 10, Source: "machine"}
	limited := func(limit, available int64) RAM {
		m := machine
		m.LimitBytes, m.AvailableBytes, m.Source = limit, available, "cgroup"
		return m
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  RAM
	}{
		{"machine", map[string]string{}, machine},
		{"unlimited group", map[string]string{
			"proc/self/cgroup":                "0::/a\n",
			"sys/fs/cgroup/a/memory.max":      "max\n",
			"sys/fs/cgroup/a/memory.current":  "5\n",
			"sys/fs/cgroup/memory.max":        "max\n",
			"sys/fs/cgroup/memory.current":    "5\n",
			"sys/fs/cgroup/a/memory.stat":     "",
			"sys/fs/cgroup/a/memory.swap.max": "0\n",
		}, machine},
		{"v2 limit on a parent, file pages can go", map[string]string{
			"proc/self/cgroup":               "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max":   "max\n",
			"sys/fs/cgroup/a/memory.max":     "1000000\n",
			"sys/fs/cgroup/a/memory.current": "700000\n",
			"sys/fs/cgroup/a/memory.stat":    "anon 1\ninactive_file 300000\nactive_file 100000\n",
		}, limited(1000000, 700000)},
		{"v2 beside v1", map[string]string{
			"proc/self/cgroup": "4:memory:/\n0::/a\n",
			"proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/unified/a/memory.max":     "1000000\n",
			"sys/fs/cgroup/unified/a/memory.current": "400000\n",
		}, limited(1000000, 600000)},
		{"a group below a container's", map[string]string{
			"proc/self/cgroup": "0::/docker/1/worker\n",
			"proc/self/mountinfo": "41 31 0:38 /docker/1 /sys/fs/cgroup rw " +
				"- cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/worker/memory.max":     "1000000\n",
			"sys/fs/cgroup/worker/memory.current": "400000\n",
			"sys/fs/cgroup/memory.high":           "900000\n",
			"sys/fs/cgroup/memory.current":        "500000\n",
		}, limited(900000, 400000)},
		{"v1 limit", map[string]string{
			"proc/self/cgroup": "9:cpu,memory:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":       "2000\n",
			"sys/fs/cgroup/memory/x/memory.usage_in_bytes":       "3000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":         "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":         "3000\n",
			"sys/fs/cgroup/memory/x/memory.stat":                 "inactive_file nonsense\n",
			"sys/fs/cgroup/memory/x/memory.kmem.limit_in_bytes":  "1\n",
			"sys/fs/cgroup/memory/x/memory.soft_limit_in_bytes":  "1\n",
			"sys/fs/cgroup/memory/x/memory.memsw.limit_in_bytes": "1\n",
		}, limited(2000, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.files["proc/meminfo"] = meminfo
			got, err := readMemory(tree(c.files))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// TestGroupsAbove: a path is below a mount's root by whole names, and one that is not is looked for
// as it stands.
func TestGroupsAbove(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		root, group string
		want        []string
	}{
		{"/", "/a/b", []string{"cg/a/b", "cg/a", "cg"}},
		{"/", "/", []string{"cg"}},
		{"/", "/../x", []string{"cg/x", "cg"}}, // outside of the namespace
		{"/docker/1", "/docker/1", []string{"cg"}},
		{"/docker/1", "/docker/1/x", []string{"cg/x", "cg"}},
		{"/docker/1", "/docker/12", []string{"cg/docker/12", "cg/docker", "cg"}},
	} {
		require.Equal(t, c.want, mount{root: c.root, point: "cg"}.up(c.group), c.group)
	}
}

func TestReadMemoryWithoutAnswer(t *testing.T) {
	t.Parallel()
	_, err := readMemory(tree(map[string]string{"proc/meminfo": "MemTotal: lots\n"}))
	require.ErrorIs(t, err, ErrUnknown)
	_, err = readMemory(tree(nil))
	require.Error(t, err)
}

func TestAvailableMemoryHere(t *testing.T) {
	t.Parallel()
	m, err := AvailableMemory()
	if err != nil {
		require.ErrorIs(t, err, ErrUnknown)
		return
	}
	require.Positive(t, m.TotalBytes)
	require.LessOrEqual(t, m.AvailableBytes, m.TotalBytes)
}

func TestHugePages(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]bool{
		"[always] madvise never\n": true, "always [madvise] never\n": true,
		"always madvise [never]\n": false, "": false,
	} {
		const name = "sys/kernel/mm/transparent_hugepage/enabled"
		require.Equal(t, want, hugePages(tree(map[string]string{name: mode})), mode)
	}
	require.False(t, hugePages(tree(nil)))
}
