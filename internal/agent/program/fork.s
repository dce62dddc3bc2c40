// Empty on purpose: it lets fork.go declare functions without bodies.
