package device

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// nodeTree is where the kernel describes memory nodes. Source: the kernel's
// Documentation/ABI/stable/sysfs-devices-node.
const nodeTree = "sys/devices/system/node"

// onlineNodes are the numbers of the memory nodes, and of those that the process may use.
func onlineNodes(root fs.FS) (all, open []int) {
	all = readList(root, nodeTree+"/online")
	open = intersect(all, parseList(statusField(root, "Mems_allowed_list")))
	if len(open) == 0 {
		open = all
	}
	return all, open
}

func nodeFile(id int, name string) string {
	return path.Join(nodeTree, fmt.Sprint("node", id), name)
}

// readNodes lists the memory nodes where there are several, and says which ones are closed to the
// process.
func readNodes(root fs.FS, usable []int) (nodes []Node, notes []string) {
	all, open := onlineNodes(root)
	if len(all) < 2 {
		return nil, nil
	}
	for _, id := range all {
		if !slices.Contains(open, id) {
			notes = append(notes, fmt.Sprintf("memory node %d is closed to this process (cpuset)", id))
			continue
		}
		info, err := readMeminfo(root, nodeFile(id, "meminfo"))
		if err != nil {
			notes = append(notes, fmt.Sprintf("memory node %d: %v", id, err))
		}
		nodes = append(nodes, Node{
			ID: id, Threads: intersect(readList(root, nodeFile(id, "cpulist")), usable),
			TotalBytes: info["MemTotal"],
		})
	}
	return nodes, notes
}

// nodeLimit is the memory of the nodes that the process may use; ok is false where it may use all.
func nodeLimit(root fs.FS) (l memoryLimit, ok bool) {
	all, open := onlineNodes(root)
	if len(open) == len(all) {
		return l, false
	}
	for _, id := range open {
		info, err := readMeminfo(root, nodeFile(id, "meminfo"))
		if err != nil {
			return l, false
		}
		free := info["MemFree"] + info["Active(file)"] + info["Inactive(file)"] + info["SReclaimable"]
		l.limit += info["MemTotal"]
		l.used += max(0, info["MemTotal"]-free)
	}
	return l, true
}
