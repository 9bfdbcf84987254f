"""Real servers on this machine: started, waited for and stopped for the demo, the tests and the benches."""
