package snapshot_test

func lookChild(_ string) int { return 0 }
