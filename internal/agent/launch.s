// Empty on purpose: it lets launch.go declare functions without bodies.
