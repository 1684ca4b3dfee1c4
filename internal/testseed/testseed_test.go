package testseed

import "testing"

func TestSeedIsTheSameUnlessAsked(t *testing.T) {
	t.Setenv("HOLDFAST_SEED", "")
	t.Setenv("HOLDFAST_LONG", "")
	if a, b := Of(t), Of(t); a != b || a != of(t.Name()) {
		t.Errorf("%d and %d", a, b)
	}
	if of("TestA") == of("TestB") {
		t.Error("all tests have one seed")
	}
	t.Setenv("HOLDFAST_LONG", "1")
	if a, b := Of(t), Of(t); a == b {
		t.Error("long runs repeat each other")
	}
	t.Setenv("HOLDFAST_SEED", "7")
	if Of(t) != 7 || !Given() {
		t.Error("another one than was named")
	}
}
