"""Neo4j: the graph search. The only importer of the neo4j driver."""
