"""Neo4j: the graph search. Only this package uses the neo4j driver."""
