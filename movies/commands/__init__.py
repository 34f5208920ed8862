"""What each command says of itself and the one function it calls; `movies.cli` parses."""
